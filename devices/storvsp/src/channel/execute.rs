//! SCSI commands: from a decision of the target to a completion or a request to a backend.

use std::sync::Arc;

use synthvm_block::{IoBuffer, Operation, Request};
use synthvm_scsi::{
    self as scsi, Cdb, CheckCondition, Command, Decision, Io, Job, LbaQuery, Transfer,
};
use vmbus_device::ChannelHandler;

use super::handler::{Outbox, RequestTag, StorageHandler};
use super::in_flight::QueueKey;
use super::outcome::complete_inline;
use crate::lun::Lun;
use crate::protocol::{Completion, Srb};

impl StorageHandler {
    /// Executes a command. `request` has the guest's memory. Returns the request unless it is in
    /// flight afterwards.
    pub(super) fn execute(
        &mut self,
        tag: RequestTag,
        srb: &Srb,
        mut request: Box<Request>,
        outbox: &mut Outbox,
    ) -> Option<Box<Request>> {
        // The set of disks may have changed since the batch began, and another channel may have
        // notified the guest. The guest expects answers from the new set after the notification.
        self.begin_round(outbox);
        let command = Command::parse(&srb.cdb, srb.cdb_length);
        let lun = self.luns.routing().lun(srb.address);
        if let Ok(Command::ReportLuns { select, allocation }) = command {
            let completion =
                self.report_luns(srb, lun.is_some(), select, allocation, &request.buffer);
            tag.answer(completion.reply(), outbox);
            return Some(request);
        }
        let Some(queue) = lun.and_then(|lun| self.queues.get_mut(lun)) else {
            let completion = self.absent(srb, &command, &request.buffer);
            tag.answer(completion.reply(), outbox);
            return Some(request);
        };
        self.reply.clear();
        let unit = &queue.lun.unit;
        let mut decision = unit.execute(cdb(srb), command, &mut self.reply);
        if let Ok(Decision::Parameters(parameters)) = decision {
            self.parameters.clear();
            self.parameters.resize(parameters.length(), 0);
            let read = request.buffer.guest().map(|guest| guest.read(0, &mut self.parameters));
            decision = match read {
                Some(Ok(())) => unit.parameters(parameters, &self.parameters),
                _ => Err(CheckCondition::INVALID_FIELD),
            };
        }
        let (operation, offset, length) = match decision {
            Ok(Decision::Io(Io { operation, range })) => (operation, range.offset, range.length),
            Ok(Decision::Flush) => (Operation::Flush, 0, 0),
            Ok(Decision::Job(job)) => return self.begin(tag, srb, *job, request, outbox),
            Ok(Decision::LbaStatus(query)) => {
                let lun = Arc::clone(&queue.lun);
                return self.ask(tag, srb, &lun, query, request, outbox);
            }
            other => {
                let completion =
                    complete_inline(&srb.completer, &other, &self.reply, &request.buffer);
                if completion.is_good() {
                    queue.lun.counters.answered(self.reply.len());
                } else {
                    queue.lun.counters.refused();
                }
                if let Ok(Decision::Ejected) = other {
                    self.luns.ejected(queue.lun.number);
                }
                tag.answer(completion.reply(), outbox);
                return Some(request);
            }
        };
        let moved = if operation.moves_bytes() { length } else { 0 };
        let fault = queue.fault();
        if fault.is_some() || request.buffer.select(0, moved as usize).is_err() {
            // Unreachable for short buffers: `Srb::parse` checked the request against the buffer.
            let condition = fault
                .map_or(CheckCondition::INVALID_FIELD, |error| scsi::condition(error, operation));
            queue.lun.counters.failed();
            tag.answer(srb.completer.check(condition).reply(), outbox);
            return Some(request);
        }
        request.tag = self.in_flight.insert(tag.in_flight(srb, self.resets.epoch(), queue.key));
        (request.operation, request.offset, request.length) = (operation, offset, length);
        queue.push(request);
        self.taken_bytes = self.taken_bytes.saturating_add(moved as u32);
        None
    }

    /// Asks `lun`'s backend for block states. The call may block, so a helper thread makes it.
    fn ask(
        &mut self,
        tag: RequestTag,
        srb: &Srb,
        lun: &Arc<Lun>,
        query: LbaQuery,
        request: Box<Request>,
        outbox: &mut Outbox,
    ) -> Option<Box<Request>> {
        let mut unused = Some(request);
        if self.queries.has_space()
            && let Some(request) = unused.take()
        {
            let in_flight = tag.in_flight(srb, self.resets.epoch(), QueueKey::QUERIES);
            let tag = self.in_flight.insert(in_flight);
            let inline = self.luns.inline().is_some();
            if let Err(request) = self.queries.ask(tag, Arc::clone(lun), query, request, inline) {
                self.in_flight.remove(tag, QueueKey::QUERIES);
                unused = Some(request);
            }
        }
        if unused.is_some() {
            lun.counters.refused();
            tag.answer(srb.completer.queue_full().reply(), outbox);
        }
        unused
    }

    /// Begins a compound command. Returns the request if the command was refused.
    fn begin(
        &mut self,
        tag: RequestTag,
        srb: &Srb,
        job: Job,
        request: Box<Request>,
        outbox: &mut Outbox,
    ) -> Option<Box<Request>> {
        let lun = self.luns.routing().lun(srb.address)?;
        let queue = self.queues.get_mut(lun)?;
        let refusal = match queue.fault() {
            Some(error) => {
                queue.lun.counters.failed();
                Some(srb.completer.check(scsi::condition(error, Operation::Flush)))
            }
            None if !self.compound.has_space() => {
                queue.lun.counters.refused();
                Some(srb.completer.queue_full())
            }
            None => None,
        };
        if let Some(completion) = refusal {
            tag.answer(completion.reply(), outbox);
            return Some(request);
        }
        let in_flight = tag.in_flight(srb, self.resets.epoch(), queue.key);
        let over = self.compound.begin(in_flight, job, request, queue, &mut self.in_flight);
        if let Some(result) = over {
            tag.answer(srb.completer.end(result).reply(), outbox);
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
            return srb.completer.check(CheckCondition::INVALID_FIELD);
        }
        self.reply.clear();
        let limit = allocation.min(srb.transfer.length()) as usize;
        let luns = self.queues.numbers().filter(|_| local);
        let result = scsi::report_luns(select, luns, limit, &mut self.reply);
        complete_inline(&srb.completer, &result.map(|()| Decision::Reply), &self.reply, buffer)
    }

    fn absent(
        &mut self,
        srb: &Srb,
        command: &Result<Command, CheckCondition>,
        buffer: &IoBuffer,
    ) -> Completion {
        self.reply.clear();
        let is_inquiry = srb.is_inquiry();
        match scsi::execute_absent(
            command,
            is_inquiry,
            srb.address.lun,
            srb.transfer,
            &mut self.reply,
        ) {
            Some(result) => complete_inline(
                &srb.completer,
                &result.map(|()| Decision::Reply),
                &self.reply,
                buffer,
            ),
            None => srb.completer.invalid_lun(),
        }
    }
}

/// Returns the command that `srb` carries.
fn cdb(srb: &Srb) -> Cdb<'_> {
    Cdb { bytes: &srb.cdb, length: srb.cdb_length, transfer: srb.transfer }
}
