//! The handler of a storage channel: packet in, SCSI, requests to the backends, completion out.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use synthvm_block::{self as block, IoBuffer};
use synthvm_scsi::{self as scsi, Decision};
use vmbus_device::{ChannelHandler, Completed};
use vmbus_host::Channel;
use vmbus_ring::{Packet, PacketKind};

use super::compound::CompoundCommands;
use super::in_flight::{InFlight, InFlightTable, QueueKey};
use super::limits::BATCH_BYTES;
use super::lun_queue::{LunQueue, LunQueues};
use super::outcome::complete_inline;
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
    /// The generation of [`LunSet::notices`] that `queues` reflects.
    notices: u64,
    /// The generation of which the guest was notified; `None` before initialisation ended.
    notified: Option<u64>,
    /// Bytes of I/O taken since the last submit.
    pub(super) taken_bytes: u32,
    pub(super) reply: Vec<u8>,
    pub(super) parameters: Vec<u8>,
    done: Vec<block::Completion>,
}

/// A packet of a kind that storage channels do not carry, or without a header. The runtime closes
/// the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadPacket {
    /// The packet has a kind that storage channels do not carry.
    #[error("packets of kind {0:?} are not valid on a storage channel")]
    Kind(PacketKind),
    /// The packet is shorter than its header.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// The identity of a guest's packet, which its completion needs.
#[derive(Clone, Copy)]
pub(super) struct RequestTag {
    transaction_id: u64,
    completion_requested: bool,
}

impl RequestTag {
    /// Returns the entry of the tag's request in the in-flight table.
    pub(super) fn in_flight(self, srb: &Srb, epoch: u32, queue: QueueKey) -> InFlight {
        let Self { transaction_id, completion_requested } = self;
        let completer = srb.completer;
        InFlight { transaction_id, completion_requested, completer, compound: None, epoch, queue }
    }

    /// Completes the request if the guest asked for a completion.
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

    /// Applies changes of the set of disks, and notifies the guest if it has to know. Costs one
    /// atomic load if nothing has changed.
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
            // This device never asks the guest for a completion, so a completion is ignored.
            PacketKind::Completion => return Ok(()),
            PacketKind::TransferPages => return Err(BadPacket::Kind(PacketKind::TransferPages)),
        }
        let tag = RequestTag {
            transaction_id: packet.transaction_id(),
            completion_requested: packet.completion_requested(),
        };
        let mut bytes = [0; MAX_PACKET];
        let length = packet.read_payload(&mut bytes);
        let mut request = self.in_flight.take_idle();
        let buffer_length = fill(&mut request.buffer, packet);
        let unused = match self.session.handle(&bytes[..length], buffer_length)? {
            Action::Execute(srb) => self.execute(tag, &srb, request, outbox),
            other => {
                self.handle_control(tag, other, outbox);
                Some(request)
            }
        };
        if let Some(request) = unused {
            self.in_flight.return_idle(request);
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
            // Completed parts have queued the next parts of their jobs.
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
        // The guest must see the completion of CREATE_SUB_CHANNELS before the offers.
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
    /// Returns the handler of a newly opened channel.
    pub(crate) fn new(luns: Arc<LunSet>, session: Session, channel: &Channel) -> Self {
        Self {
            luns,
            session,
            // The first `begin_round` fills in the disks.
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

    /// Returns the handler of a restored channel. The guest was notified of the changes up to
    /// generation `notified`.
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

    /// Completes the answered queries. Returns true if there were any.
    fn complete_queries(&mut self, outbox: &mut Outbox) -> bool {
        let mut any = false;
        self.queries.clear_event();
        while let Some(Finished { lun, request: idle, answer }) = self.queries.take_finished() {
            any = true;
            if let Some(request) = self.in_flight.remove(idle.tag, QueueKey::QUERIES) {
                let data = answer.as_deref().unwrap_or_default();
                let decision =
                    answer.as_ref().map(|_| Decision::Reply).map_err(|condition| *condition);
                let completion = complete_inline(&request.completer, &decision, data, &idle.buffer);
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
            self.in_flight.return_idle(idle);
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
                // Subchannels do not read their rings before initialisation ends: wake their
                // workers.
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

/// Fills `buffer` with the guest memory that `packet` describes. Returns its bytes. Returns 0
/// without a description and for an invalid one, so that a command which needs data is refused
/// (spec storvsc section 4).
#[inline(always)]
fn fill(buffer: &mut IoBuffer, packet: &Packet<'_>) -> usize {
    let Some(guest) = buffer.guest_mut() else { return 0 };
    if packet.kind() != PacketKind::GpaDirect || packet.gpa_direct(guest).is_err() {
        guest.clear();
    }
    guest.len()
}

/// Handles one completion of a queue: completes the command, or continues the compound command.
#[inline]
fn complete_one(
    queue: &mut LunQueue,
    done: block::Completion,
    in_flight: &mut InFlightTable,
    compound: &mut CompoundCommands,
    outbox: &mut Outbox,
    resets: &mut Resets,
) {
    let Some(entry) = in_flight.remove(done.request.tag, queue.key) else {
        // A foreign request may refer to any memory, so it is not recycled.
        return queue.lun.foreign_completion();
    };
    queue.ended();
    let completion = if entry.compound.is_some() {
        let Some(result) = compound.part_done(&entry, done, queue, in_flight) else { return };
        entry.completer.end(result)
    } else {
        let block::Completion { request, result, copied } = done;
        let (operation, length) = (request.operation, request.length);
        let completion = match result {
            Ok(()) => {
                queue.count(operation, length, copied);
                let moved =
                    if operation.moves_bytes() { length as u32 } else { entry.completer.sent() };
                entry.completer.good(moved)
            }
            Err(error) => {
                queue.lun.failed(operation, request.offset, error);
                entry.completer.check(scsi::condition(error, operation))
            }
        };
        in_flight.return_idle(request);
        completion
    };
    if entry.completion_requested {
        outbox.complete(entry.transaction_id, completion.reply());
    }
    resets.ended(entry.epoch, |transaction_id, reply| outbox.complete(transaction_id, reply));
}
