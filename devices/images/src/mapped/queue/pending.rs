//! Requests of a queue that are not finished.

use std::sync::Arc;

use synthvm_block::{IoBuffer, IoError, Request};

/// A request that is carried out by subrequests to the files.
pub(super) enum Pending {
    /// The request itself went to a file. `fua`: a flush follows, if structures need one.
    Whole { origin: Origin, fua: bool },
    /// All other requests.
    Compound(Compound),
}

/// The fields of a request that are replaced while a file has it.
#[derive(Clone, Copy)]
pub(super) struct Origin {
    tag: u64,
    offset: u64,
}

impl Origin {
    /// Points `request` at `offset` of a file, under a tag of the queue's own. Returns its own
    /// fields.
    pub(super) fn redirect(request: &mut Request, tag: u64, offset: u64) -> Self {
        let own = Self { tag: request.tag, offset: request.offset };
        (request.tag, request.offset) = (tag, offset);
        own
    }

    /// Gives `request` its own fields back.
    pub(super) fn restore(self, request: &mut Request) {
        (request.tag, request.offset) = (self.tag, self.offset);
    }
}

/// A request of several subrequests or several stages.
pub(super) struct Compound {
    /// The request. Its memory is in `split` while subrequests have a part each.
    pub(super) request: Box<Request>,
    pub(super) split: Option<Arc<IoBuffer>>,
    pub(super) stage: Stage,
    /// Subrequests that have not completed.
    pub(super) left: usize,
    pub(super) then: Then,
    pub(super) result: Result<(), IoError>,
    pub(super) copied: u64,
}

impl Compound {
    /// Returns a compound request. No byte of it has moved.
    pub(super) fn new(request: Box<Request>, then: Then) -> Self {
        Self {
            request,
            split: None,
            stage: Stage::Moving,
            left: 0,
            then,
            result: Ok(()),
            copied: 0,
        }
    }
}

pub(super) enum Stage {
    Moving,
    /// A flush that began with this token.
    Flushing(u64),
}

/// The stage that follows when the bytes have moved.
#[derive(Clone, Copy)]
pub(super) enum Then {
    End,
    /// A flush, if structures need one: force unit access.
    Flush,
    /// The rest of a long range must be cleared.
    Clear(u64),
}

/// A request that waits for the metadata thread.
pub(super) enum Lookup {
    /// For the location of its range, without the first bytes of it that are done.
    Request { request: Box<Request>, progress: u64 },
    /// The request in this slot, which a flush follows.
    Flush(u64),
}
