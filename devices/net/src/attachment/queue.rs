//! A queue of an [`Attachment`](super::Attachment).

use std::sync::Arc;

use super::Plug;
use super::totals::Totals;
use crate::layer::LayeredQueue;
use crate::{Counters, Frame, Pieces, Queue, ReceiveError, Received, SendError};

/// The most frames that one call drops while the link is down. The rest keeps the event readable.
const DROPS: usize = 64;

pub(super) struct AttachedQueue {
    inner: Box<dyn Queue>,
    plug: Arc<Plug>,
    totals: Arc<[Totals]>,
    index: usize,
    /// The counters of `inner` whose drops are in the totals.
    counted: Counters,
    /// Frames that were not sent because the user had the link down.
    refused: u64,
}

impl AttachedQueue {
    /// Returns `inner` as queue `index`, which must have totals.
    pub(super) fn new(
        inner: Box<dyn Queue>,
        plug: Arc<Plug>,
        totals: Arc<[Totals]>,
        index: usize,
    ) -> Self {
        let counted = inner.counters();
        Self { inner, plug, totals, index, counted, refused: 0 }
    }

    fn totals(&self) -> &Totals {
        &self.totals[self.index]
    }

    /// Drops frames until there is none, or some more must wait for another call.
    fn drop_frames(&mut self, space: &Pieces<'_>) -> Result<Option<Received>, ReceiveError> {
        for _ in 0..DROPS {
            match self.inner.receive(space) {
                Ok(Some(_)) | Err(ReceiveError::TooLong) => {
                    self.totals().receive_link_down.add(1);
                }
                Ok(None) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Adds the drops that only the inner queue sees to the totals.
    fn publish(&mut self) {
        let now = self.inner.counters();
        self.totals().add_unseen(&self.counted, &now);
        self.counted = now;
    }
}

impl LayeredQueue for AttachedQueue {
    fn inner(&self) -> &dyn Queue {
        &*self.inner
    }

    fn inner_mut(&mut self) -> &mut dyn Queue {
        &mut *self.inner
    }

    fn send(&mut self, frame: &Frame<'_>) -> Result<(), SendError> {
        let result = if self.plug.is_in() {
            self.inner.send(frame)
        } else {
            self.refused = self.refused.wrapping_add(1);
            Err(SendError::LinkDown)
        };
        self.totals().count_send(frame.pieces.len(), result);
        result
    }

    fn receive(&mut self, space: &Pieces<'_>) -> Result<Option<Received>, ReceiveError> {
        let result =
            if self.plug.is_in() { self.inner.receive(space) } else { self.drop_frames(space) };
        self.totals().count_receive(&result);
        // Idle queues publish, so that a busy one pays nothing.
        if !matches!(result, Ok(Some(_))) {
            self.publish();
        }
        result
    }

    /// Counts frames that were dropped while the link was down as received.
    fn counters(&self) -> Counters {
        let inner = self.inner.counters();
        Counters { send_link_down: inner.send_link_down.wrapping_add(self.refused), ..inner }
    }
}

impl Drop for AttachedQueue {
    fn drop(&mut self) {
        self.publish();
    }
}
