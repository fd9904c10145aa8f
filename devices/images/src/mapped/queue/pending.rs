//! Requests of a queue that are not finished.

use std::sync::Arc;

use synthvm_block::{IoBuffer, IoError, IoRequest, Operation};

/// A request that is carried out by subrequests to the files.
pub(super) enum Pending {
    /// One subrequest has all of the memory. `fua`: a flush follows, if structures need one.
    Whole { id: u32, fua: bool },
    /// All other requests.
    Compound(Compound),
}

/// A request of several subrequests or several stages.
pub(super) struct Compound {
    /// The id of the request, from [`IoRequest::id`].
    pub(super) id: u32,
    pub(super) stage: Stage,
    /// The request's memory, unless one file got the whole request.
    pub(super) memory: Memory,
    /// Subrequests that have not completed.
    pub(super) left: usize,
    pub(super) then: Then,
    pub(super) result: Result<(), IoError>,
    pub(super) copied: u64,
}

impl Compound {
    /// Returns a compound request. No byte of it has moved.
    pub(super) fn new(id: u32, memory: Memory, then: Then) -> Self {
        Self { id, stage: Stage::Moving, memory, left: 0, then, result: Ok(()), copied: 0 }
    }
}

pub(super) enum Stage {
    Moving,
    /// A flush that began with this token.
    Flushing(u64),
}

pub(super) enum Memory {
    /// The memory as a whole. `None`: the subrequest has it.
    Whole(Option<Box<IoBuffer>>),
    /// The subrequests have one part each.
    Split(Arc<IoBuffer>),
}

/// The stage that follows when all bytes have moved.
pub(super) enum Then {
    End,
    /// A flush, if structures need one: force unit access.
    Flush,
    /// The rest of a long range must be cleared.
    Clear(Box<Rest>),
}

pub(super) struct Rest {
    pub(super) operation: Operation,
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// A request that waits for the metadata thread.
pub(super) enum Lookup {
    Request(IoRequest),
    /// The request in this slot, which continues with a flush.
    Flush(u32),
}
