//! Messages with frames of the guest: from a packet to the backend, and to the packet's completion.

use std::os::fd::RawFd;

use synthvm_net::{Pieces, Queue};
use vmbus_device::SavedPacket;
use vmbus_gpadl::{GuestBuffer, GuestRam};
use vmbus_ring::{Packet, PacketKind};

use crate::config::Config;
use crate::counters::SharedStatistics;
use crate::message::GuestMessage;
use crate::packet::NetPacket;
use crate::protocol::nvsp::{HostMessage, NvspStatus, RndisPacket};
use crate::queue::ChannelQueue;
use crate::transmit::Remaining;

/// Packets to the guest.
pub(crate) type Outbox = vmbus_device::Outbox<NetPacket>;

/// A channel's frames to the backend.
pub(crate) struct Transmitter {
    pub(crate) queue: ChannelQueue,
    /// The ranges of the packet in hand.
    ranges: GuestBuffer,
    /// The message whose next frame waits for space in the backend. No packet is taken meanwhile.
    waiting: Option<Transmission>,
    /// The backend keeps a part of a frame, which waits for space.
    has_unsent: bool,
    /// Kept for its memory.
    pieces: Pieces<'static>,
}

/// A message of the guest that is being sent. Its ranges are the transmitter's.
struct Transmission {
    request: Request,
    packet: RndisPacket,
    remaining: Remaining,
}

/// The configuration, and the counters of the channel.
type Around<'a> = (&'a Config, &'a SharedStatistics);

/// How to complete a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) transaction_id: u64,
    pub(crate) wants_completion: bool,
}

impl Transmitter {
    /// Returns the transmitter of a channel.
    pub(crate) fn new(queue: ChannelQueue, ram: GuestRam) -> Self {
        let (ranges, has_unsent) = (GuestBuffer::new(ram), queue.has_unsent());
        Self { queue, ranges, waiting: None, has_unsent, pieces: Pieces::new() }
    }

    /// Returns true if no message waits: another packet may be taken.
    #[inline]
    pub(crate) fn is_free(&self) -> bool {
        self.waiting.is_none()
    }

    /// Returns the completion of the message that waits for the backend, for a save: the frames
    /// that it has left are lost.
    pub(crate) fn save(&self, config: &Config) -> Option<SavedPacket> {
        let Request { transaction_id, wants_completion } = self.waiting.as_ref()?.request;
        let message = HostMessage::rndis_complete(config.version?, NvspStatus::Success);
        wants_completion.then(|| SavedPacket {
            answers: Some(transaction_id),
            requests: None,
            bytes: message.bytes().to_vec(),
            transfer_pages: Vec::new(),
        })
    }

    /// Returns the event of space in the backend, if something waits for it.
    pub(crate) fn space_event(&self) -> Option<RawFd> {
        if self.is_free() && !self.has_unsent { None } else { self.queue.space_event() }
    }

    /// Notes the ranges of a packet. One without valid ranges has none.
    #[inline]
    pub(crate) fn take_ranges(&mut self, packet: &Packet<'_>) {
        let is_direct = packet.kind() == PacketKind::GpaDirect;
        let is_taken = is_direct && packet.gpa_direct(&mut self.ranges).is_ok();
        if !is_taken && !self.ranges.is_empty() {
            self.ranges.clear();
        }
    }

    /// Returns the message of `packet`, whose ranges were noted last. `None`: it names a section
    /// that is not there.
    #[inline]
    pub(crate) fn message<'a>(
        &'a self,
        config: &'a Config,
        packet: RndisPacket,
    ) -> Option<GuestMessage<'a>> {
        message(config, &self.ranges, packet)
    }

    /// Sends the frames of the message of `packet`, whose ranges were noted last.
    #[inline]
    pub(crate) fn send(
        &mut self,
        request: Request,
        packet: RndisPacket,
        around: Around<'_>,
        outbox: &mut Outbox,
    ) {
        self.transmit(request, packet, None, around, outbox);
    }

    /// Continues with the message that waits for the backend, or with the part of a frame that the
    /// backend keeps. Returns true if the message waits no longer.
    #[inline]
    pub(crate) fn resume(&mut self, around: Around<'_>, outbox: &mut Outbox) -> bool {
        let Some(Transmission { request, packet, remaining }) = self.waiting.take() else {
            if self.has_unsent {
                self.flush();
            }
            return false;
        };
        self.transmit(request, packet, Some(remaining), around, outbox);
        self.waiting.is_none()
    }

    #[cold]
    fn flush(&mut self) {
        let left = self.queue.with(|queue| {
            queue.flush();
            queue.has_unsent()
        });
        self.has_unsent = left.unwrap_or(false);
    }

    /// Drops the frames that are left of the message that waits for the backend.
    #[cold]
    pub(crate) fn give_up(&mut self, (config, statistics): Around<'_>, outbox: &mut Outbox) {
        let Some(Transmission { request, packet, mut remaining }) = self.waiting.take() else {
            return;
        };
        if let Some(message) = message(config, &self.ranges, packet) {
            remaining.skip(&message, statistics);
        }
        request.complete(remaining.status, config, outbox);
    }

    /// Sends frames until the backend is full or none is left. `remaining`: those of a message that
    /// was begun before.
    #[inline]
    fn transmit(
        &mut self,
        request: Request,
        packet: RndisPacket,
        remaining: Option<Remaining>,
        around: Around<'_>,
        outbox: &mut Outbox,
    ) {
        let (config, statistics) = around;
        let Some(message) = message(config, &self.ranges, packet) else {
            statistics.count_malformed();
            return request.complete(NvspStatus::Failure, config, outbox);
        };
        let mut remaining = remaining.unwrap_or_else(|| {
            // A message that is too long for any length is one without frames, and fails.
            Remaining::new(message.len().unwrap_or(0), config.max_frame)
        });
        let (pieces, has_unsent) = (&mut self.pieces, &mut self.has_unsent);
        let send = |queue: &mut dyn Queue| {
            let is_done = remaining.send(&message, queue, pieces, statistics);
            *has_unsent = queue.has_unsent();
            is_done
        };
        match self.queue.with(send) {
            Some(true) => {}
            Some(false) => {
                return self.waiting = Some(Transmission { request, packet, remaining });
            }
            None => remaining.skip(&message, statistics),
        }
        request.complete(remaining.status, config, outbox);
    }
}

impl Request {
    /// Returns the request of `packet`.
    #[inline]
    pub(crate) fn of(packet: &Packet<'_>) -> Self {
        Self {
            transaction_id: packet.transaction_id(),
            wants_completion: packet.completion_requested(),
        }
    }

    /// Sends `packet` as the completion, if the guest wants one.
    #[inline]
    pub(crate) fn answer(self, packet: NetPacket, outbox: &mut Outbox) {
        if self.wants_completion {
            outbox.complete(self.transaction_id, packet);
        }
    }

    /// Completes an RNDIS message.
    #[inline]
    pub(crate) fn complete(self, status: NvspStatus, config: &Config, outbox: &mut Outbox) {
        match config.version {
            Some(version) if status == NvspStatus::Success => {
                self.answer(NetPacket::constant(HostMessage::frames_sent(version)), outbox);
            }
            Some(version) => {
                let message = HostMessage::rndis_complete(version, status);
                self.answer(NetPacket::message(message), outbox);
            }
            // The connection has ended. Every packet is completed all the same.
            None => self.answer(NetPacket::empty(), outbox),
        }
    }
}

#[inline]
fn message<'a>(
    config: &'a Config,
    ranges: &'a GuestBuffer,
    packet: RndisPacket,
) -> Option<GuestMessage<'a>> {
    let section = match packet.section {
        None => None,
        Some(section) => {
            let (layout, view) = config.send_buffer.as_ref()?;
            Some((&**view, layout.locate(section)?))
        }
    };
    Some(GuestMessage::new(section, ranges))
}
