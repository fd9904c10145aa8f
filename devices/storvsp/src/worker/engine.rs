//! From a packet to what it comes to: everything of a worker but the rings.

use std::sync::Arc;

use vmbus_log::LogRateLimiter;
use vmbus_ring::{Packet, PacketKind};
use vmm_sys_util::eventfd::EventFd;

use super::jobs::Jobs;
use super::outbox::Outbox;
use super::ports::{Port, Ports};
use super::queries::{Finished, Queries};
use super::resets::Resets;
use super::slots::{InFlight, Slots};
use crate::controller::{Controller, Parked};
use crate::lun::Lun;
use crate::protocol::{Action, Completion, MAX_PACKET, Malformed, Reply, Session, Srb};
use synthvm_block::{IoBuffer, IoDone, IoRequest, Operation};
use synthvm_scsi::{self as scsi, Cdb, CheckCondition, Command, Decision, Io, Job, LbaQuery, Transfer};

/// All that a worker knows, except its channel.
pub(super) struct Engine {
    controller: Arc<Controller>,
    session: Session,
    pub(super) ports: Ports,
    pub(super) slots: Slots,
    jobs: Jobs,
    queries: Queries,
    pub(super) outbox: Outbox,
    resets: Resets,
    /// Subchannels that the guest asked for, not yet passed on to the bus.
    subchannels: Option<u16>,
    /// Changes of the LUNs that the ports have taken over, and which of them the guest has been told of; `None` before initialisation ended.
    news: u64,
    announced: Option<u64>,
    /// Bytes of I/O taken since the last submit.
    taken_bytes: u32,
    reply: Vec<u8>,
    list: Vec<u8>,
    done: Vec<IoDone>,
}

/// A packet that no storage channel carries, or that has no header. The channel is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadPacket {
    #[error("a storage channel carries no {0:?} packets")]
    Kind(PacketKind),
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// How to answer a packet.
#[derive(Clone, Copy)]
struct Sender {
    transaction_id: u64,
    completion_requested: bool,
}

impl Sender {
    /// What is to be remembered of its request.
    fn request(self, srb: &Srb, epoch: u32, operation: Operation, (offset, length): (u64, u64)) -> InFlight {
        let Self { transaction_id, completion_requested } = self;
        InFlight {
            transaction_id,
            completion_requested,
            srb: *srb,
            operation,
            offset,
            length,
            epoch,
            job: None,
        }
    }
}

impl Engine {
    pub(super) fn new(controller: Arc<Controller>, session: Session, slots: Slots) -> Self {
        let mut ports = Ports::new();
        let news = controller.news();
        ports.refresh(&controller);
        Self {
            controller,
            session,
            ports,
            slots,
            jobs: Jobs::default(),
            queries: Queries::default(),
            outbox: Outbox::default(),
            resets: Resets::default(),
            subchannels: None,
            news,
            announced: None,
            taken_bytes: 0,
            reply: Vec::new(),
            list: Vec::new(),
            done: Vec::new(),
        }
    }

    /// Goes on with what another worker had when its machine was saved.
    pub(super) fn restore(&mut self, parked: &Parked) {
        self.outbox.restore(&parked.packets);
        self.announced = parked.announced.map(|_| self.news);
        if self.announced != parked.announced {
            self.announce();
        }
    }

    /// Nothing is in flight; what another worker needs to go on.
    pub(super) fn parked(&self) -> Option<Parked> {
        (self.slots.count() == 0 && self.jobs.count() == 0)
            .then(|| Parked { packets: self.outbox.saved(), announced: self.announced })
    }

    /// A packet may be taken: there is room for whatever comes of it, its session has begun, and the machine does not stand still.
    pub(super) fn may_take(&self) -> bool {
        self.slots.has_room()
            && self.outbox.has_room()
            && self.session.may_read()
            && !self.controller.is_paused()
    }

    /// Bytes of I/O that were taken and not yet submitted.
    pub(super) fn taken_bytes(&self) -> u32 {
        self.taken_bytes
    }

    /// Looks for disks that came or went, and tells a guest that could not know. Costs one load when
    /// nothing changed.
    #[inline]
    pub(super) fn refresh(&mut self) {
        if !self.ports.are_current(&self.controller) {
            self.take_changes();
        }
    }

    #[cold]
    fn take_changes(&mut self) {
        self.ports.refresh(&self.controller);
        self.news = self.controller.news();
        if self.announced.is_some_and(|announced| announced != self.news) {
            self.announced = Some(self.news);
            self.announce();
        }
    }

    /// Tells the guest to look for disks.
    fn announce(&mut self) {
        if let Some(news) = self.session.negotiation().version().and_then(Reply::enumerate_bus) {
            self.outbox.notify(news);
        }
    }

    /// Where the worker belongs.
    pub(super) fn controller(&self) -> &Arc<Controller> {
        &self.controller
    }

    /// Where to complain about the guest.
    pub(super) fn faults(&self) -> &LogRateLimiter {
        &self.controller.faults
    }

    /// Subchannels to offer now: after the completion that promised them.
    pub(super) fn take_subchannels(&mut self) -> Option<u16> {
        self.subchannels.take()
    }

    /// Takes one packet: answers it, or makes an I/O of it for the next [`Engine::submit`].
    ///
    /// # Errors
    /// The channel cannot go on.
    pub(super) fn take(&mut self, packet: &Packet<'_>) -> Result<(), BadPacket> {
        match packet.kind() {
            PacketKind::InBand | PacketKind::GpaDirect => {}
            // Nothing of ours asks for a completion; one that comes nevertheless means nothing.
            PacketKind::Completion => return Ok(()),
            PacketKind::TransferPages => return Err(BadPacket::Kind(PacketKind::TransferPages)),
        }
        let sender = Sender {
            transaction_id: packet.transaction_id(),
            completion_requested: packet.completion_requested(),
        };
        let mut bytes = [0; MAX_PACKET];
        let length = packet.read_payload(&mut bytes);
        let mut buffer = self.slots.take_buffer();
        let buffer_length = fill(&mut buffer, packet);
        let unused = match self.session.handle(&bytes[..length], buffer_length)? {
            Action::Execute(srb) => self.execute(sender, &srb, buffer),
            other => {
                self.administer(sender, other);
                Some(buffer)
            }
        };
        if let Some(buffer) = unused {
            self.slots.return_buffer(buffer);
        }
        Ok(())
    }

    /// Hands the I/O taken so far to the queues.
    pub(super) fn submit(&mut self) {
        if self.taken_bytes != 0 || self.slots.count() != 0 {
            self.ports.submit();
            self.taken_bytes = 0;
        }
    }

    /// Completes what the queues have finished. True when there was anything.
    pub(super) fn finish(&mut self) -> bool {
        if self.slots.count() == 0 {
            return false;
        }
        let Self { ports, slots, jobs, outbox, resets, done, .. } = self;
        let mut any = false;
        ports.poll(done, |port, done| {
            any = true;
            finish(port, done, slots, jobs, outbox, resets);
        });
        if any && self.has_parts() {
            // What comes after the parts that ended.
            self.ports.submit();
        }
        if !self.queries.is_empty() {
            any |= self.finish_queries();
        }
        any
    }

    /// Completes the questions that were answered. True when there was any.
    fn finish_queries(&mut self) -> bool {
        let mut any = false;
        while let Some(Finished { id, lun, buffer, answer }) = self.queries.take_finished() {
            any = true;
            if let Some(request) = self.slots.remove(id) {
                let data = answer.as_deref().unwrap_or_default();
                let decision = answer.as_ref().map(|_| Decision::Reply).map_err(|condition| *condition);
                let completion = conclude(&request.srb, &decision, data, &buffer);
                if completion.is_good() {
                    lun.counters.answered(data.len());
                }
                if request.completion_requested {
                    self.outbox.complete(request.transaction_id, completion.reply());
                }
                let Self { resets, outbox, .. } = self;
                resets.ended(request.epoch, |transaction_id, reply| outbox.complete(transaction_id, reply));
            }
            self.slots.return_buffer(buffer);
        }
        any
    }

    /// Readable when a question was answered; see [`Queries::event`].
    pub(super) fn query_event(&self) -> Option<&EventFd> {
        self.queries.event()
    }

    /// Parts of commands are in flight: [`Engine::finish`] submits the next ones, which may be finished by then.
    pub(super) fn has_parts(&self) -> bool {
        self.jobs.parts() != 0
    }

    fn administer(&mut self, sender: Sender, action: Action) {
        match action {
            Action::Execute(_) => {}
            Action::Reply(reply) => self.answer(sender, reply),
            Action::Complete(completion) => self.answer(sender, completion.reply()),
            Action::Ready(reply) => {
                self.answer(sender, reply);
                self.announced = Some(self.news);
                // Subchannels that were opened early may read their rings now.
                self.controller.kick();
            }
            Action::OfferSubchannels { reply, total } => {
                self.answer(sender, reply);
                self.subchannels = Some(total);
            }
            Action::Reset(reply) => {
                let in_flight = self.slots.count() - self.jobs.parts() + self.jobs.count();
                let waits =
                    sender.completion_requested && self.resets.begin(sender.transaction_id, reply, in_flight);
                if !waits {
                    self.answer(sender, reply);
                }
            }
        }
    }

    fn answer(&mut self, sender: Sender, reply: Reply) {
        if sender.completion_requested {
            self.outbox.complete(sender.transaction_id, reply);
        }
    }

    /// Executes a command. Returns the buffer unless an I/O has it now.
    fn execute(&mut self, sender: Sender, srb: &Srb, mut buffer: Box<IoBuffer>) -> Option<Box<IoBuffer>> {
        // The set of disks may have changed since the batch began, and the guest may have been told so
        // on another channel: what it sends then is answered by the new set.
        self.refresh();
        let command = Command::parse(&srb.cdb, srb.cdb_length);
        let lun = self.controller.routing().lun(srb.address);
        if let Ok(Command::ReportLuns { select, allocation }) = command {
            let completion = self.report_luns(srb, lun.is_some(), select, allocation, &buffer);
            self.answer(sender, completion.reply());
            return Some(buffer);
        }
        let Some(port) = lun.and_then(|lun| self.ports.get_mut(lun)) else {
            let completion = self.absent(srb, &command, &buffer);
            self.answer(sender, completion.reply());
            return Some(buffer);
        };
        self.reply.clear();
        let unit = &port.lun.unit;
        let mut decision = unit.execute(cdb(srb), command, &mut self.reply);
        if let Ok(Decision::Parameters(parameters)) = decision {
            self.list.clear();
            self.list.resize(parameters.length(), 0);
            let read = buffer.guest().map(|guest| guest.read(0, &mut self.list));
            decision = match read {
                Some(Ok(())) => unit.parameters(parameters, &self.list),
                _ => Err(CheckCondition::INVALID_FIELD),
            };
        }
        let (operation, offset, length) = match decision {
            Ok(Decision::Io(Io { operation, range })) => (operation, range.offset, range.length),
            Ok(Decision::Flush) => (Operation::Flush, 0, 0),
            Ok(Decision::Job(job)) => return self.begin(sender, srb, *job, buffer),
            Ok(Decision::LbaStatus(query)) => {
                let lun = Arc::clone(&port.lun);
                return self.ask(sender, srb, &lun, query, buffer);
            }
            other => {
                let completion = conclude(srb, &other, &self.reply, &buffer);
                if completion.is_good() {
                    port.lun.counters.answered(self.reply.len());
                } else {
                    port.lun.counters.refused();
                }
                if let Ok(Decision::Ejected) = other {
                    self.controller.ejected(port.lun.number);
                }
                self.answer(sender, completion.reply());
                return Some(buffer);
            }
        };
        let moved = if moves_bytes(operation) { length } else { 0 };
        let fault = port.fault();
        if fault.is_some() || buffer.select(0, moved as usize).is_err() {
            // A buffer too short cannot be: the request was validated against it.
            let condition =
                fault.map_or(CheckCondition::INVALID_FIELD, |error| scsi::condition(error, operation));
            port.lun.counters.failed();
            self.answer(sender, srb.check(condition).reply());
            return Some(buffer);
        }
        let in_flight = sender.request(srb, self.resets.epoch(), operation, (offset, length));
        let id = self.slots.insert(in_flight);
        port.push(IoRequest { id, operation, offset, length, buffer });
        self.taken_bytes = self.taken_bytes.saturating_add(moved as u32);
        None
    }

    /// Asks `lun`'s image, which may take its time.
    fn ask(
        &mut self,
        sender: Sender,
        srb: &Srb,
        lun: &Arc<Lun>,
        query: LbaQuery,
        buffer: Box<IoBuffer>,
    ) -> Option<Box<IoBuffer>> {
        let mut unused = Some(buffer);
        if self.queries.has_space()
            && let Some(buffer) = unused.take()
        {
            let range = (query.range.offset, 0);
            let in_flight = sender.request(srb, self.resets.epoch(), Operation::Read, range);
            let id = self.slots.insert(in_flight);
            let inline = self.controller.inline().is_some();
            if let Err(buffer) = self.queries.ask(id, Arc::clone(lun), query, buffer, inline) {
                self.slots.remove(id);
                unused = Some(buffer);
            }
        }
        if unused.is_some() {
            lun.counters.refused();
            self.answer(sender, srb.queue_full().reply());
        }
        unused
    }

    /// Begins a command of several requests.
    fn begin(&mut self, sender: Sender, srb: &Srb, job: Job, buffer: Box<IoBuffer>) -> Option<Box<IoBuffer>> {
        let lun = self.controller.routing().lun(srb.address)?;
        let port = self.ports.get_mut(lun)?;
        let refusal = match port.fault() {
            Some(error) => {
                port.lun.counters.failed();
                Some(srb.check(scsi::condition(error, Operation::Flush)))
            }
            None if !self.jobs.has_room() => {
                port.lun.counters.refused();
                Some(srb.queue_full())
            }
            None => None,
        };
        if let Some(completion) = refusal {
            self.answer(sender, completion.reply());
            return Some(buffer);
        }
        // Each part overwrites what it does where.
        let in_flight = sender.request(srb, self.resets.epoch(), Operation::Flush, (0, 0));
        let over = self.jobs.begin(in_flight, job, buffer, port, &mut self.slots);
        if let Some(result) = over {
            self.answer(sender, srb.end(result).reply());
        }
        None
    }

    fn report_luns(
        &mut self,
        srb: &Srb,
        local: bool,
        select: u8,
        allocation: u32,
        buffer: &IoBuffer,
    ) -> Completion {
        if let Transfer::ToDisk(_) = srb.transfer {
            return srb.check(CheckCondition::INVALID_FIELD);
        }
        self.reply.clear();
        let limit = allocation.min(srb.transfer.length()) as usize;
        let luns = self.ports.numbers().filter(|_| local);
        let result = scsi::report_luns(select, luns, limit, &mut self.reply);
        conclude(srb, &result.map(|()| Decision::Reply), &self.reply, buffer)
    }

    fn absent(
        &mut self,
        srb: &Srb,
        command: &Result<Command, CheckCondition>,
        buffer: &IoBuffer,
    ) -> Completion {
        self.reply.clear();
        let is_inquiry = srb.is_inquiry();
        match scsi::execute_absent(command, is_inquiry, srb.address.lun, srb.transfer, &mut self.reply) {
            Some(result) => conclude(srb, &result.map(|()| Decision::Reply), &self.reply, buffer),
            None => srb.invalid_lun(),
        }
    }
}

/// Fills `buffer` with the guest memory that comes with `packet`. Returns its bytes: 0 when there is none, and when its description is
/// wrong, so that a request which needs it is refused (spec storvsc section 4).
fn fill(buffer: &mut IoBuffer, packet: &Packet<'_>) -> usize {
    let Some(guest) = buffer.guest_mut() else { return 0 };
    if packet.kind() != PacketKind::GpaDirect || packet.gpa_direct(guest).is_err() {
        guest.clear();
    }
    guest.len()
}

/// Words a decision that needs no I/O, after writing its data to the guest.
fn conclude(
    srb: &Srb,
    decision: &Result<Decision, CheckCondition>,
    reply: &[u8],
    buffer: &IoBuffer,
) -> Completion {
    match decision {
        Err(condition) => srb.check(*condition),
        Ok(Decision::Conflict) => srb.conflict(),
        Ok(Decision::Reply) if !reply.is_empty() => match buffer.guest().map(|guest| guest.write(0, reply)) {
            Some(Ok(())) => srb.good(reply.len() as u32),
            _ => srb.check(CheckCondition::INVALID_FIELD),
        },
        Ok(_) => srb.good(srb.sent()),
    }
}

/// Takes one request back from its queue: completes the command, or goes on with it.
fn finish(
    port: &mut Port,
    done: IoDone,
    slots: &mut Slots,
    jobs: &mut Jobs,
    outbox: &mut Outbox,
    resets: &mut Resets,
) {
    let Some(request) = slots.remove(done.id) else {
        slots.return_buffer(done.buffer);
        return;
    };
    let completion = if request.job.is_some() {
        let Some(result) = jobs.part_done(&request, done, port, slots) else { return };
        request.srb.end(result)
    } else {
        slots.return_buffer(done.buffer);
        match done.result {
            Ok(()) => {
                port.lun.counters.done(request.operation, request.length, done.copied);
                let moved =
                    if moves_bytes(request.operation) { request.length as u32 } else { request.srb.sent() };
                request.srb.good(moved)
            }
            Err(error) => {
                port.lun.failed(request.operation, request.offset, error);
                request.srb.check(scsi::condition(error, request.operation))
            }
        }
    };
    if request.completion_requested {
        outbox.complete(request.transaction_id, completion.reply());
    }
    resets.ended(request.epoch, |transaction_id, reply| outbox.complete(transaction_id, reply));
}

/// The operation moves bytes between the guest and the medium; else its length is only that of a range.
fn moves_bytes(operation: Operation) -> bool {
    matches!(operation, Operation::Read | Operation::Write { .. })
}

/// Returns the command that `srb` carries.
fn cdb(srb: &Srb) -> Cdb<'_> {
    Cdb { bytes: &srb.cdb, length: srb.cdb_length, transfer: srb.transfer }
}
