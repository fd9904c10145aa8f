//! One request's lookup in the format's structures, in bounded steps.

use std::panic::{AssertUnwindSafe, catch_unwind};

use synthvm_block::{IoError, Operation};
use tracing::error;

use super::mailbox::Answer;
use super::{Clearing, Extents, Map, Step};

/// Most extents of one answer. The rest of a longer range is looked up when these extents have been
/// zeroed, so that an UNMAP of terabytes never has a million requests in flight.
pub(super) const MAX_EXTENTS: usize = 1024;

/// A lookup that may block.
#[derive(Debug)]
pub(super) struct Job {
    ticket: u64,
    operation: Operation,
    offset: u64,
    length: u64,
    /// Bytes of the range that have been looked up.
    done: u64,
    extents: Extents,
}

/// The result of a step of a job.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The job is finished. [`Job::answer`] takes this result.
    Finished(Result<u64, IoError>),
    /// Another step is needed.
    Again,
    /// Another step is needed after [`Map::barrier`].
    Barrier,
}

impl Job {
    /// Returns the lookup for `operation` on `length` bytes at `offset`. The answer carries
    /// `ticket`.
    pub(super) fn new(ticket: u64, operation: Operation, offset: u64, length: u64) -> Self {
        Self { ticket, operation, offset, length, done: 0, extents: Extents::default() }
    }

    /// Executes a bounded part of the work.
    pub(super) fn step(&mut self, map: &dyn Map) -> Outcome {
        contain(|| self.attempt(map)).unwrap_or_else(|error| Outcome::Finished(Err(error)))
    }

    fn attempt(&mut self, map: &dyn Map) -> Result<Outcome, IoError> {
        // The disk may have shrunk since the request was taken.
        if self.offset + self.length > map.geometry().capacity {
            return Err(IoError::EndOfImage);
        }
        let (at, left) = (self.offset + self.done, self.length - self.done);
        let extents = &mut self.extents;
        let step = match self.operation {
            Operation::Flush => map.write_back()?,
            Operation::Read => map.locate(at, left, extents)?,
            Operation::Write { .. } => map.allocate(at, left, extents)?,
            Operation::Discard => map.clear(Clearing::Discard, at, left, extents)?,
            Operation::WriteZeroes { unmap } => {
                map.clear(Clearing::Zero { unmap }, at, left, extents)?
            }
        };
        Ok(match step {
            Step::Barrier => Outcome::Barrier,
            Step::Again => Outcome::Again,
            Step::Done(bytes) => {
                self.done += bytes.min(left);
                let clears =
                    matches!(self.operation, Operation::Discard | Operation::WriteZeroes { .. });
                let full = clears && extents.as_slice().len() >= MAX_EXTENTS;
                if self.done == self.length || full {
                    Outcome::Finished(Ok(self.done))
                } else {
                    Outcome::Again
                }
            }
        })
    }

    /// Ends the job.
    pub(super) fn answer(self, result: Result<u64, IoError>) -> Answer {
        Answer { ticket: self.ticket, result, extents: self.extents }
    }

    /// Executes all steps on this thread, for a queue without a metadata thread.
    pub(super) fn run(mut self, map: &dyn Map) -> Answer {
        loop {
            match self.step(map) {
                Outcome::Finished(result) => return self.answer(result),
                Outcome::Again => {}
                Outcome::Barrier => {
                    if let Err(error) = barrier(map) {
                        return self.answer(Err(error));
                    }
                }
            }
        }
    }
}

/// Runs [`Map::barrier`].
pub(super) fn barrier(map: &dyn Map) -> Result<(), IoError> {
    contain(|| map.barrier())
}

/// Turns a panic in a format into an error of the request. The panic would end the metadata thread,
/// which all requests of the image need.
fn contain<T>(work: impl FnOnce() -> Result<T, IoError>) -> Result<T, IoError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        error!("the code of an image format panicked: its request fails");
        Err(IoError::Os(libc::EIO))
    })
}
