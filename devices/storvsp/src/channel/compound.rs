//! Commands that take more than one request: UNMAP of many ranges, WRITE SAME with a pattern,
//! comparisons.
//!
//! A job is one command of the guest. Its parts go to the LUN queue a few at a time, each with its
//! own entry in the in-flight table. The job ends with its last part, and reports the first error
//! of all parts. The blocks that a comparison reads and the pattern that a fill writes are in the
//! device's own memory, so the numbers of jobs, parts and bytes are bounded here.

use super::in_flight::{InFlight, InFlightTable};
use super::limits::{CHUNK, MAX_JOBS, MAX_PARTS};
use super::lun_queue::LunQueue;
use crate::lun::Lun;
use synthvm_block::{Completion, IoBuffer, Operation, Request};
use synthvm_scsi::{CheckCondition, Expected, Job, Range, Sense, condition};

/// The compound commands (jobs) of one channel.
#[derive(Debug, Default)]
pub(super) struct CompoundCommands {
    running: [Option<Box<Running>>; MAX_JOBS],
    count: usize,
    /// Requests in flight that are parts of them.
    parts: usize,
}

#[derive(Debug)]
struct Running {
    /// Template of the in-flight entries of the parts.
    entry: InFlight,
    job: Job,
    /// Progress: bytes of the range, or ranges of the list, that parts were made for.
    next: u64,
    /// The guest's buffer must be written before the first comparison.
    writes_first: bool,
    in_flight: usize,
    failure: Option<CheckCondition>,
    moved: u64,
    copied: u64,
    /// The request with the guest's memory; `None` while it is being written.
    guest: Option<Box<Request>>,
    /// Idle requests with memory of the device's own, each [`CHUNK`] long.
    chunks: Vec<Box<Request>>,
    scratch: Vec<u8>,
}

impl CompoundCommands {
    /// Returns true if another job can begin.
    pub(super) fn has_space(&self) -> bool {
        self.count < MAX_JOBS
    }

    /// Returns the number of jobs in progress.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Requests in flight that are parts of them.
    pub(super) fn parts(&self) -> usize {
        self.parts
    }

    /// Begins `job`. `guest` has the guest's memory. The first parts go to `queue`, each with
    /// `entry`. The caller must check [`CompoundCommands::has_space`] first. Returns the result if
    /// the job has already ended.
    pub(super) fn begin(
        &mut self,
        entry: InFlight,
        job: Job,
        guest: Box<Request>,
        queue: &mut LunQueue,
        in_flight: &mut InFlightTable,
    ) -> Option<Result<(), CheckCondition>> {
        let id = self.running.iter().position(Option::is_none)?;
        let writes_first = matches!(job, Job::Compare { write: true, .. });
        self.running[id] = Some(Box::new(Running {
            entry: InFlight { compound: Some(id as u8), ..entry },
            job,
            next: 0,
            writes_first,
            in_flight: 0,
            failure: None,
            moved: 0,
            copied: 0,
            guest: Some(guest),
            chunks: Vec::new(),
            scratch: Vec::new(),
        }));
        self.count += 1;
        queue.compound += 1;
        self.advance(id, queue, in_flight)
    }

    /// Handles the completion of a part. Returns the job's result if the part was its last.
    pub(super) fn part_done(
        &mut self,
        entry: &InFlight,
        done: Completion,
        queue: &mut LunQueue,
        in_flight: &mut InFlightTable,
    ) -> Option<Result<(), CheckCondition>> {
        let id = usize::from(entry.compound?);
        let running = self.running.get_mut(id)?.as_mut()?;
        running.in_flight -= 1;
        self.parts -= 1;
        running.take_back(done, &queue.lun, in_flight);
        self.advance(id, queue, in_flight)
    }

    /// Submits as many parts as may be in flight. Returns the job's result if no part is left.
    fn advance(
        &mut self,
        id: usize,
        queue: &mut LunQueue,
        in_flight: &mut InFlightTable,
    ) -> Option<Result<(), CheckCondition>> {
        let running = self.running[id].as_mut()?;
        while running.in_flight < MAX_PARTS && (running.in_flight == 0 || in_flight.has_space()) {
            let Some(mut part) = running.part(in_flight) else { break };
            part.tag = in_flight.insert(running.entry);
            queue.push(part);
            running.in_flight += 1;
            self.parts += 1;
        }
        if running.in_flight != 0 {
            return None;
        }
        let running = self.running[id].take()?;
        self.count -= 1;
        queue.compound -= 1;
        Some(running.end(&queue.lun, in_flight))
    }
}

impl Running {
    /// Returns the next part. `None`: no part is left, or the next one must wait for another part.
    fn part(&mut self, in_flight: &mut InFlightTable) -> Option<Box<Request>> {
        if self.failure.is_some() {
            return None;
        }
        let (mut part, operation, range) = match &self.job {
            Job::Discard(ranges) => {
                let range = *ranges.get(usize::try_from(self.next).ok()?)?;
                self.next += 1;
                let mut part = in_flight.take_idle();
                part.buffer.deselect();
                (part, Operation::Discard, range)
            }
            Job::Fill { range, block } => {
                let chunk = next_chunk(*range, &mut self.next)?;
                let mut part = self.chunks.pop().unwrap_or_else(|| {
                    let blocks = CHUNK as usize / block.len();
                    chunk_request(block.repeat(blocks))
                });
                part.buffer.select(0, chunk.length as usize).ok()?;
                (part, Operation::Write { fua: false }, chunk)
            }
            Job::Compare { range, .. } if self.writes_first => {
                self.writes_first = false;
                let mut part = self.guest.take()?;
                if part.buffer.select(0, range.length as usize).is_err() {
                    self.guest = Some(part);
                    self.failure = Some(CheckCondition::INVALID_FIELD);
                    return None;
                }
                (part, Operation::Write { fua: true }, *range)
            }
            Job::Compare { range, .. } => {
                // The comparison waits until the guest's data has been written.
                self.guest.as_ref()?;
                let chunk = next_chunk(*range, &mut self.next)?;
                let mut part =
                    self.chunks.pop().unwrap_or_else(|| chunk_request(vec![0; CHUNK as usize]));
                part.buffer.select(0, chunk.length as usize).ok()?;
                (part, Operation::Read, chunk)
            }
        };
        (part.operation, part.offset, part.length) = (operation, range.offset, range.length);
        Some(part)
    }

    /// Records the result of a part and recycles its request.
    fn take_back(&mut self, done: Completion, lun: &Lun, in_flight: &mut InFlightTable) {
        let Completion { request: mut part, result, copied } = done;
        match result {
            Ok(()) => {
                self.moved += part.length;
                self.copied += copied;
                match (&self.job, part.operation) {
                    (Job::Compare { .. }, Operation::Read) => self.compare(&mut part, lun),
                    (Job::Fill { .. }, _) => self.copied += part.length,
                    _ => {}
                }
            }
            Err(error) => {
                // Only the first failure of a command is counted and logged.
                if self.failure.is_none() {
                    lun.failed(part.operation, part.offset, error);
                    self.failure = Some(condition(error, part.operation));
                }
            }
        }
        match (&self.job, part.operation) {
            (Job::Discard(_), _) => in_flight.return_idle(part),
            (Job::Compare { .. }, Operation::Write { .. }) => self.guest = Some(part),
            _ => self.chunks.push(part),
        }
    }

    fn compare(&mut self, part: &mut Request, lun: &Lun) {
        let Job::Compare { range, expected, .. } = &self.job else { return };
        let (offset, length) = (part.offset, part.length as usize);
        let Some(read) = part.buffer.host_bytes().map(|bytes| &bytes[..length]) else { return };
        self.copied += length as u64;
        let equal = match expected {
            Expected::Block(block) => read.chunks(block.len()).all(|chunk| *chunk == **block),
            Expected::Buffer => {
                self.scratch.resize(length, 0);
                let guest = self.guest.as_ref().and_then(|request| request.buffer.guest());
                let at = (offset - range.offset) as usize;
                guest.is_some_and(|guest| guest.read(at, &mut self.scratch).is_ok())
                    && read == self.scratch
            }
        };
        if !equal && self.failure.is_none() {
            // A miscompare is an answer, not a failure of the backend.
            lun.counters.answered(0);
            self.failure = Some(CheckCondition::execution(Sense::MISCOMPARE));
        }
    }

    fn end(self, lun: &Lun, in_flight: &mut InFlightTable) -> Result<(), CheckCondition> {
        if let Some(guest) = self.guest {
            in_flight.return_idle(guest);
        }
        let operation = match self.job {
            Job::Discard(_) => Operation::Discard,
            Job::Fill { .. } | Job::Compare { write: true, .. } => Operation::Write { fua: false },
            Job::Compare { .. } => Operation::Read,
        };
        if self.failure.is_none() {
            lun.counters.done(operation, self.moved, self.copied);
        }
        self.failure.map_or(Ok(()), Err)
    }
}

fn chunk_request(bytes: Vec<u8>) -> Box<Request> {
    Request::new(0, Operation::Read, 0, 0, IoBuffer::from_vec(bytes))
}

/// Returns the next chunk of `range` behind the first `done` bytes, and advances `done`. `None` at
/// the end of the range.
fn next_chunk(range: Range, done: &mut u64) -> Option<Range> {
    let left = range.length.checked_sub(*done).filter(|left| *left != 0)?;
    let chunk = Range { offset: range.offset + *done, length: left.min(CHUNK) };
    *done += chunk.length;
    Some(chunk)
}
