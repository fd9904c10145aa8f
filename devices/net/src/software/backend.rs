//! A backend that gains transmit offloads.

use std::sync::Arc;

use vm_memory::VolatileSlice;

use super::Work;
use crate::layer::{Layer, LayeredQueue};
use crate::{Backend, Counters, Frame, MAX_FRAME, Offloads, Pieces, Queue, SendError};

/// Adds all transmit offloads to a backend. A frame that the backend supports passes without a
/// copy; another one is copied one time, completed or split, and sent.
#[derive(Debug)]
pub struct SoftwareOffload {
    inner: Arc<dyn Backend>,
}

impl SoftwareOffload {
    /// Returns `inner` with all transmit offloads.
    pub fn new(inner: Arc<dyn Backend>) -> Self {
        Self { inner }
    }
}

impl Layer for SoftwareOffload {
    fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    fn offloads_over(&self, inner: Offloads) -> Offloads {
        inner | Offloads::TRANSMIT
    }

    fn wrap(&self, inner: Box<dyn Queue>) -> Box<dyn Queue> {
        Box::new(SoftwareQueue {
            inner,
            native: self.inner.offloads(),
            work: Work::new(),
            pieces: Pieces::new(),
            counters: Counters::default(),
        })
    }
}

struct SoftwareQueue {
    inner: Box<dyn Queue>,
    native: Offloads,
    /// The frame in progress: its rest waits for space in the backend.
    work: Work,
    /// The list for frames of this process, empty between calls.
    pieces: Pieces<'static>,
    counters: Counters,
}

impl SoftwareQueue {
    fn try_send(&mut self, frame: &Frame<'_>) -> Result<(), SendError> {
        frame.check(Offloads::TRANSMIT, MAX_FRAME)?;
        // The previous frame goes first. An error of its rest has no caller to return to.
        if self.send_rest() == Err(SendError::Full) {
            return Err(SendError::Full);
        }
        if Offloads::needed(&frame.header).is_some_and(|needed| self.native.contains(needed)) {
            return self.inner.send(frame);
        }
        self.work.start(frame).map_err(|_| SendError::Malformed)?;
        match self.send_rest() {
            // The rest is sent by later calls.
            Err(SendError::Full) => Ok(()),
            result => result,
        }
    }

    /// Sends frames of the work until the backend is full or none is left.
    fn send_rest(&mut self) -> Result<(), SendError> {
        while let Some(bytes) = self.work.current() {
            let mut pieces = std::mem::take(&mut self.pieces).recycle();
            // The list is empty: one piece fits.
            let _ = pieces.push(VolatileSlice::from(bytes));
            let result = self.inner.send(&Frame::new(&pieces));
            self.pieces = pieces.recycle();
            match result {
                Ok(()) => self.work.advance(),
                Err(SendError::Full) => return Err(SendError::Full),
                Err(error) => {
                    self.work.stop();
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

impl LayeredQueue for SoftwareQueue {
    fn inner(&self) -> &dyn Queue {
        &*self.inner
    }

    fn inner_mut(&mut self) -> &mut dyn Queue {
        &mut *self.inner
    }

    fn send(&mut self, frame: &Frame<'_>) -> Result<(), SendError> {
        let result = self.try_send(frame);
        self.counters.count_send(frame.pieces.len(), result);
        result
    }

    fn has_unsent(&self) -> bool {
        self.work.is_active() || self.inner.has_unsent()
    }

    fn flush(&mut self) {
        self.inner.flush();
        // An error of the rest has no caller to return to.
        let _ = self.send_rest();
    }

    fn counters(&self) -> Counters {
        let inner = self.inner.counters();
        Counters {
            received_frames: inner.received_frames,
            received_bytes: inner.received_bytes,
            receive_too_long: inner.receive_too_long,
            receive_overflow: inner.receive_overflow,
            receive_invalid: inner.receive_invalid,
            ..self.counters
        }
    }
}
