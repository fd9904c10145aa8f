//! The handler of a storage channel: packet in, SCSI, requests to the backends, completion out.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use synthvm_block::{IoBuffer, IoDone, Operation};
use synthvm_scsi::{self as scsi, Decision};
use vmbus_device::{ChannelHandler, Completed};
use vmbus_host::Channel;
use vmbus_ring::{Packet, PacketKind};

use super::compound::CompoundCommands;
use super::in_flight::{InFlight, InFlightTable};
use super::limits::BATCH_BYTES;
use super::lun_queue::{LunQueue, LunQueues};
use super::outcome::{complete_inline, moves_bytes};
use super::queries::{Finished, Queries};
use super::resets::Resets;
use crate::lun_set::LunSet;
use crate::protocol::{Action, MAX_PACKET, Malformed, Reply, Session, Srb};

/// Packets to the guest.
pub(super) type Outbox = vmbus_device::Outbox<Reply>;

/// The state of a storage channel.
pub(crate) struct StorageHandler {
    pub(super) luns: Arc<LunSet>,
    session: Session,
    pub(super) queues: LunQueues,
    pub(super) in_flight: InFlightTable,
    pub(super) compound: CompoundCommands,
    pub(super) queries: Queries,
    pub(super) resets: Resets,
    /// Subchannels that the guest asked for, not yet passed on to the bus.
    subchannels: Option<u16>,
    /// The generation of changes that the guest must know of ([`LunSet::notices`]), as
    /// `queues` have it.
    notices: u64,
    /// The generation of which the guest was notified; `None` before initialisation ended.
    notified: Option<u64>,
    /// Bytes of I/O taken since the last submit.
    pub(super) taken_bytes: u32,
    pub(super) reply: Vec<u8>,
    pub(super) parameters: Vec<u8>,
    done: Vec<IoDone>,
}

/// A packet that no storage channel carries, or that has no header. The channel is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadPacket {
    /// Of another kind.
    #[error("a storage channel carries no {0:?} packets")]
    Kind(PacketKind),
    /// Too short.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// How to answer a packet.
#[derive(Clone, Copy)]
pub(super) struct RequestTag {
    transaction_id: u64,
    completion_requested: bool,
}

impl RequestTag {
    /// Returns the in-flight record of the tag's request.
    pub(super) fn request(
        self,
        srb: &Srb,
        epoch: u32,
        operation: Operation,
        (offset, length): (u64, u64),
    ) -> InFlight {
        let Self { transaction_id, completion_requested } = self;
        InFlight {
            transaction_id,
            completion_requested,
            completer: srb.completer,
            operation,
            offset,
            length,
            epoch,
            compound: None,
        }
    }

    /// Completes the request, if its sender wants that.
    pub(super) fn answer(self, reply: Reply, outbox: &mut Outbox) {
        if self.completion_requested {
            outbox.complete(self.transaction_id, reply);
        }
    }
}

impl ChannelHandler for StorageHandler {
    type Payload = Reply;
    type Error = BadPacket;
    /// The generation of changes of which the guest was notified.
    type State = Option<u64>;

    /// Takes over disks that came or went, and notifies a guest that could not know. Costs one load
    /// when nothing changed.
    #[inline]
    fn begin_round(&mut self, outbox: &mut Outbox) {
        if !self.queues.are_current(&self.luns) {
            self.take_changes(outbox);
        }
    }

    #[inline]
    fn may_take(&self) -> bool {
        self.in_flight.has_space() && self.session.may_read()
    }

    #[inline]
    fn is_batch_full(&self) -> bool {
        self.taken_bytes >= BATCH_BYTES
    }

    #[inline]
    fn packet(&mut self, packet: &Packet<'_>, outbox: &mut Outbox) -> Result<(), BadPacket> {
        match packet.kind() {
            PacketKind::InBand | PacketKind::GpaDirect => {}
            // This device asks for no completion; one that comes nevertheless means nothing.
            PacketKind::Completion => return Ok(()),
            PacketKind::TransferPages => return Err(BadPacket::Kind(PacketKind::TransferPages)),
        }
        let tag = RequestTag {
            transaction_id: packet.transaction_id(),
            completion_requested: packet.completion_requested(),
        };
        let mut bytes = [0; MAX_PACKET];
        let length = packet.read_payload(&mut bytes);
        let mut buffer = self.in_flight.take_buffer();
        let buffer_length = fill(&mut buffer, packet);
        let unused = match self.session.handle(&bytes[..length], buffer_length)? {
            Action::Execute(srb) => self.execute(tag, &srb, buffer, outbox),
            other => {
                self.handle_control(tag, other, outbox);
                Some(buffer)
            }
        };
        if let Some(buffer) = unused {
            self.in_flight.return_buffer(buffer);
        }
        Ok(())
    }

    /// Hands the requests taken so far to the queues.
    #[inline]
    fn end_batch(&mut self) {
        if self.taken_bytes != 0 || self.in_flight.count() != 0 {
            self.queues.submit();
            self.taken_bytes = 0;
        }
    }

    #[inline]
    fn complete(&mut self, outbox: &mut Outbox) -> Completed {
        if self.in_flight.count() == 0 {
            return Completed::Nothing;
        }
        let Self { queues, in_flight, compound, resets, done, .. } = self;
        let mut any = false;
        queues.poll(done, |queue, done| {
            any = true;
            complete_one(queue, done, in_flight, compound, outbox, resets);
        });
        let has_parts = self.compound.parts() != 0;
        if any && has_parts {
            // The parts that follow those which ended.
            self.queues.submit();
        }
        if !self.queries.is_empty() {
            any |= self.complete_queries(outbox);
        }
        match any {
            true if has_parts => Completed::CallAgain,
            true => Completed::Some,
            false => Completed::Nothing,
        }
    }

    #[inline]
    fn delivered(&mut self, channel: &Channel) {
        // After the completion that promised them.
        if let Some(total) = self.subchannels.take() {
            channel.offer_subchannels(total);
        }
    }

    fn events(&self, events: &mut Vec<RawFd>) {
        events.extend(
            self.queries.event().map(AsRawFd::as_raw_fd).into_iter().chain(self.queues.events()),
        );
    }

    #[inline]
    fn in_flight(&self) -> usize {
        self.in_flight.count()
    }

    fn quiesce(&self) -> Option<Option<u64>> {
        (self.in_flight.count() == 0 && self.compound.count() == 0).then_some(self.notified)
    }
}

impl StorageHandler {
    /// Returns the handler of a channel that a guest has opened.
    pub(crate) fn new(luns: Arc<LunSet>, session: Session, channel: &Channel) -> Self {
        Self {
            luns,
            session,
            // The first round takes the disks over.
            queues: LunQueues::new(),
            in_flight: InFlightTable::new(channel.ram().clone()),
            compound: CompoundCommands::default(),
            queries: Queries::default(),
            resets: Resets::default(),
            subchannels: None,
            notices: 0,
            notified: None,
            taken_bytes: 0,
            reply: Vec::new(),
            parameters: Vec::new(),
            done: Vec::new(),
        }
    }

    /// The same for a channel that was saved, whose guest was notified of the changes up to
    /// `notified`.
    pub(crate) fn restored(
        luns: Arc<LunSet>,
        session: Session,
        channel: &Channel,
        notified: Option<u64>,
    ) -> Self {
        Self { notified, ..Self::new(luns, session, channel) }
    }

    #[cold]
    fn take_changes(&mut self, outbox: &mut Outbox) {
        self.queues.refresh(&self.luns);
        self.notices = self.luns.notices();
        if self.notified.is_some_and(|notified| notified != self.notices) {
            self.notified = Some(self.notices);
            if let Some(notice) =
                self.session.negotiation().version().and_then(Reply::enumerate_bus)
            {
                outbox.notify(notice);
            }
        }
    }

    /// Completes the queries that were answered. True when there was any.
    fn complete_queries(&mut self, outbox: &mut Outbox) -> bool {
        let mut any = false;
        self.queries.clear_event();
        while let Some(Finished { id, lun, buffer, answer }) = self.queries.take_finished() {
            any = true;
            if let Some(request) = self.in_flight.remove(id) {
                let data = answer.as_deref().unwrap_or_default();
                let decision =
                    answer.as_ref().map(|_| Decision::Reply).map_err(|condition| *condition);
                let completion = complete_inline(&request.completer, &decision, data, &buffer);
                if completion.is_good() {
                    lun.counters.answered(data.len());
                }
                if request.completion_requested {
                    outbox.complete(request.transaction_id, completion.reply());
                }
                let resets = &mut self.resets;
                resets.ended(request.epoch, |transaction_id, reply| {
                    outbox.complete(transaction_id, reply);
                });
            }
            self.in_flight.return_buffer(buffer);
        }
        any
    }

    fn handle_control(&mut self, tag: RequestTag, action: Action, outbox: &mut Outbox) {
        match action {
            Action::Execute(_) => {}
            Action::Reply(reply) => tag.answer(reply, outbox),
            Action::Complete(completion) => tag.answer(completion.reply(), outbox),
            Action::Ready(reply) => {
                tag.answer(reply, outbox);
                self.notified = Some(self.notices);
                // Subchannels that were opened early may read their rings now.
                self.luns.kick();
            }
            Action::OfferSubchannels { reply, total } => {
                tag.answer(reply, outbox);
                self.subchannels = Some(total);
            }
            Action::Reset(reply) => {
                let in_flight =
                    self.in_flight.count() - self.compound.parts() + self.compound.count();
                let waits = tag.completion_requested
                    && self.resets.begin(tag.transaction_id, reply, in_flight);
                if !waits {
                    tag.answer(reply, outbox);
                }
            }
        }
    }
}

/// Fills `buffer` with the guest memory that comes with `packet`. Returns its bytes: 0 when there
/// is none, and when its description is wrong, so that a request which needs it is refused (spec
/// storvsc section 4).
#[inline(always)]
fn fill(buffer: &mut IoBuffer, packet: &Packet<'_>) -> usize {
    let Some(guest) = buffer.guest_mut() else { return 0 };
    if packet.kind() != PacketKind::GpaDirect || packet.gpa_direct(guest).is_err() {
        guest.clear();
    }
    guest.len()
}

/// Takes one request back from its queue: completes the command, or continues it.
#[inline]
fn complete_one(
    queue: &mut LunQueue,
    done: IoDone,
    in_flight: &mut InFlightTable,
    compound: &mut CompoundCommands,
    outbox: &mut Outbox,
    resets: &mut Resets,
) {
    let Some(request) = in_flight.remove(done.id) else {
        in_flight.return_buffer(done.buffer);
        return;
    };
    let completion = if request.compound.is_some() {
        let Some(result) = compound.part_done(&request, done, queue, in_flight) else { return };
        request.completer.end(result)
    } else {
        in_flight.return_buffer(done.buffer);
        match done.result {
            Ok(()) => {
                queue.count(request.operation, request.length, done.copied);
                let moved = if moves_bytes(request.operation) {
                    request.length as u32
                } else {
                    request.completer.sent()
                };
                request.completer.good(moved)
            }
            Err(error) => {
                queue.lun.failed(request.operation, request.offset, error);
                request.completer.check(scsi::condition(error, request.operation))
            }
        }
    };
    if request.completion_requested {
        outbox.complete(request.transaction_id, completion.reply());
    }
    resets.ended(request.epoch, |transaction_id, reply| outbox.complete(transaction_id, reply));
}
