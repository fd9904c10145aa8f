//! Requests of a queue that are not finished.

use std::sync::Arc;

use synthvm_block::{IoBuffer, IoError, IoRequest, Operation};

/// A request that subrequests to the files carry out.
pub(super) enum Pending {
    /// One subrequest has its memory. `fua`: a flush follows, if structures need one.
    Whole { id: u32, fua: bool },
    /// Anything else.
    Compound(Compound),
}

/// A request of several subrequests or several stages.
pub(super) struct Compound {
    /// From [`IoRequest::id`].
    pub(super) id: u32,
    pub(super) stage: Stage,
    /// The request's memory, unless it went to the file whole.
    pub(super) memory: Memory,
    /// Subrequests that are not back.
    pub(super) left: usize,
    pub(super) then: Then,
    pub(super) result: Result<(), IoError>,
    pub(super) copied: u64,
}

impl Compound {
    /// Returns a request whose bytes have yet to move.
    pub(super) fn new(id: u32, memory: Memory, then: Then) -> Self {
        Self { id, stage: Stage::Moving, memory, left: 0, then, result: Ok(()), copied: 0 }
    }
}

pub(super) enum Stage {
    Moving,
    /// A flush, begun with this token.
    Flushing(u64),
}

pub(super) enum Memory {
    /// With the subrequest, or back from it.
    Whole(Option<Box<IoBuffer>>),
    /// The subrequests have a part each.
    Split(Arc<IoBuffer>),
}

/// The stage that follows when the bytes have moved.
pub(super) enum Then {
    End,
    /// A flush, if structures need one: force unit access.
    Flush,
    /// The rest of a long range is cleared.
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
    /// The request in this slot, which a flush follows.
    Flush(u32),
}
