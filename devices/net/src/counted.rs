//! The part of a queue that is the same for all backends: its counters and its claim.

use std::os::fd::RawFd;

use crate::claim::Claim;
use crate::{Counters, Frame, Pieces, Queue, ReceiveError, Received, SendError};

/// A queue that does not count its frames. [`Counted`] makes it a [`Queue`].
pub(crate) trait Uncounted: Send {
    /// As [`Queue::send`].
    fn send(&mut self, frame: &Frame<'_>) -> Result<(), SendError>;

    /// As [`Queue::receive`].
    fn receive(&mut self, space: &Pieces<'_>) -> Result<Option<Received>, ReceiveError>;

    /// As [`Queue::event`].
    fn event(&self) -> Option<RawFd>;

    /// As [`Queue::space_event`].
    fn space_event(&self) -> Option<RawFd> {
        None
    }

    /// As [`Queue::has_unsent`].
    fn has_unsent(&self) -> bool {
        false
    }

    /// As [`Queue::flush`].
    fn flush(&mut self) {}

    /// Sets those counters that the queue keeps by itself: frames that it dropped.
    fn add_own(&self, counters: &mut Counters) {
        let _ = counters;
    }
}

/// A queue with its counters.
pub(crate) struct Counted<Q> {
    queue: Q,
    counters: Counters,
    /// After the queue, so that the next one opens when this one is closed.
    _claim: Claim,
}

impl<Q: Uncounted + 'static> Counted<Q> {
    /// Returns `queue` for the worker that has `claim`.
    pub(crate) fn boxed(queue: Q, claim: Claim) -> Box<dyn Queue> {
        Box::new(Self { queue, counters: Counters::default(), _claim: claim })
    }
}

impl<Q: Uncounted> Queue for Counted<Q> {
    fn send(&mut self, frame: &Frame<'_>) -> Result<(), SendError> {
        let result = self.queue.send(frame);
        self.counters.count_send(frame.pieces.len(), result);
        result
    }

    fn receive(&mut self, space: &Pieces<'_>) -> Result<Option<Received>, ReceiveError> {
        let result = self.queue.receive(space);
        self.counters.count_receive(&result);
        result
    }

    fn event(&self) -> Option<RawFd> {
        self.queue.event()
    }

    fn space_event(&self) -> Option<RawFd> {
        self.queue.space_event()
    }

    fn has_unsent(&self) -> bool {
        self.queue.has_unsent()
    }

    fn flush(&mut self) {
        self.queue.flush();
    }

    fn counters(&self) -> Counters {
        let mut counters = self.counters;
        self.queue.add_own(&mut counters);
        counters
    }
}
