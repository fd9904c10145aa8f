//! SCSI commands: from a decision of the target to a completion or a request to a backend.

use std::sync::Arc;

use synthvm_block::{IoBuffer, IoRequest, Operation};
use synthvm_scsi::{
    self as scsi, Cdb, CheckCondition, Command, Decision, Io, Job, LbaQuery, Transfer,
};
use vmbus_device::ChannelHandler;

use super::handler::{Outbox, RequestTag, StorageHandler};
use super::outcome::{complete_inline, moves_bytes};
use crate::lun::Lun;
use crate::protocol::{Completion, Srb};

impl StorageHandler {
    /// Executes a command. Returns the buffer unless an I/O has it now.
    pub(super) fn execute(
        &mut self,
        tag: RequestTag,
        srb: &Srb,
        mut buffer: Box<IoBuffer>,
        outbox: &mut Outbox,
    ) -> Option<Box<IoBuffer>> {
        // The set of disks may have changed since the batch began, and the guest may have been told
        // so on another channel: what it sends then is answered by the new set.
        self.begin_round(outbox);
        let command = Command::parse(&srb.cdb, srb.cdb_length);
        let lun = self.luns.routing().lun(srb.address);
        if let Ok(Command::ReportLuns { select, allocation }) = command {
            let completion = self.report_luns(srb, lun.is_some(), select, allocation, &buffer);
            tag.answer(completion.reply(), outbox);
            return Some(buffer);
        }
        let Some(queue) = lun.and_then(|lun| self.queues.get_mut(lun)) else {
            let completion = self.absent(srb, &command, &buffer);
            tag.answer(completion.reply(), outbox);
            return Some(buffer);
        };
        self.reply.clear();
        let unit = &queue.lun.unit;
        let mut decision = unit.execute(cdb(srb), command, &mut self.reply);
        if let Ok(Decision::Parameters(parameters)) = decision {
            self.parameters.clear();
            self.parameters.resize(parameters.length(), 0);
            let read = buffer.guest().map(|guest| guest.read(0, &mut self.parameters));
            decision = match read {
                Some(Ok(())) => unit.parameters(parameters, &self.parameters),
                _ => Err(CheckCondition::INVALID_FIELD),
            };
        }
        let (operation, offset, length) = match decision {
            Ok(Decision::Io(Io { operation, range })) => (operation, range.offset, range.length),
            Ok(Decision::Flush) => (Operation::Flush, 0, 0),
            Ok(Decision::Job(job)) => return self.begin(tag, srb, *job, buffer, outbox),
            Ok(Decision::LbaStatus(query)) => {
                let lun = Arc::clone(&queue.lun);
                return self.ask(tag, srb, &lun, query, buffer, outbox);
            }
            other => {
                let completion = complete_inline(&srb.completer, &other, &self.reply, &buffer);
                if completion.is_good() {
                    queue.lun.counters.answered(self.reply.len());
                } else {
                    queue.lun.counters.refused();
                }
                if let Ok(Decision::Ejected) = other {
                    self.luns.ejected(queue.lun.number);
                }
                tag.answer(completion.reply(), outbox);
                return Some(buffer);
            }
        };
        let moved = if moves_bytes(operation) { length } else { 0 };
        let fault = queue.fault();
        if fault.is_some() || buffer.select(0, moved as usize).is_err() {
            // A buffer too short cannot be: the request was validated against it.
            let condition = fault
                .map_or(CheckCondition::INVALID_FIELD, |error| scsi::condition(error, operation));
            queue.lun.counters.failed();
            tag.answer(srb.completer.check(condition).reply(), outbox);
            return Some(buffer);
        }
        let in_flight = tag.request(srb, self.resets.epoch(), operation, (offset, length));
        let id = self.in_flight.insert(in_flight);
        queue.push(IoRequest { id, operation, offset, length, buffer });
        self.taken_bytes = self.taken_bytes.saturating_add(moved as u32);
        None
    }

    /// Asks `lun`'s image, which may take its time.
    fn ask(
        &mut self,
        tag: RequestTag,
        srb: &Srb,
        lun: &Arc<Lun>,
        query: LbaQuery,
        buffer: Box<IoBuffer>,
        outbox: &mut Outbox,
    ) -> Option<Box<IoBuffer>> {
        let mut unused = Some(buffer);
        if self.queries.has_space()
            && let Some(buffer) = unused.take()
        {
            let range = (query.range.offset, 0);
            let in_flight = tag.request(srb, self.resets.epoch(), Operation::Read, range);
            let id = self.in_flight.insert(in_flight);
            let inline = self.luns.inline().is_some();
            if let Err(buffer) = self.queries.ask(id, Arc::clone(lun), query, buffer, inline) {
                self.in_flight.remove(id);
                unused = Some(buffer);
            }
        }
        if unused.is_some() {
            lun.counters.refused();
            tag.answer(srb.completer.queue_full().reply(), outbox);
        }
        unused
    }

    /// Begins a command of several requests.
    fn begin(
        &mut self,
        tag: RequestTag,
        srb: &Srb,
        job: Job,
        buffer: Box<IoBuffer>,
        outbox: &mut Outbox,
    ) -> Option<Box<IoBuffer>> {
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
            return Some(buffer);
        }
        // Each part sets its own operation and range.
        let in_flight = tag.request(srb, self.resets.epoch(), Operation::Flush, (0, 0));
        let over = self.compound.begin(in_flight, job, buffer, queue, &mut self.in_flight);
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
