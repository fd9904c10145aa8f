//! Offloads in software, for backends without them: checksums, TCP and UDP segmentation.
//!
//! [`checksum`], [`Headers`], [`Plan`] and [`complete_headers`] are pure functions over bytes.
//! [`SoftwareOffload`] adds the offloads to a backend.

mod backend;
pub mod checksum;
mod headers;
mod seed;
mod segment;
#[cfg(test)]
pub(crate) mod shape;
#[cfg(test)]
mod tests;

pub use backend::SoftwareOffload;
pub use headers::{Headers, TCP, UDP};
pub use seed::complete_headers;
pub use segment::{MAX_SEGMENTS, Plan};

use crate::{Frame, MAX_FRAME, MIN_FRAME};

/// The frame does not have the form that its offload request implies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the offload request does not fit the frame")]
pub struct Malformed;

/// A copy of one frame, and the frames that it is split into. It allocates for the first frames
/// only.
#[derive(Debug)]
pub(crate) struct Work {
    frame: Vec<u8>,
    plan: Option<Plan>,
    next: usize,
    out: Vec<u8>,
}

impl Work {
    /// Returns work without frame.
    pub(crate) fn new() -> Self {
        Self { frame: Vec::new(), plan: None, next: 0, out: Vec::new() }
    }

    /// Copies a frame with its tag, in place of the one before.
    pub(crate) fn start(&mut self, frame: &Frame<'_>) -> Result<(), Malformed> {
        self.plan = None;
        self.next = 0;
        self.frame.clear();
        if !(MIN_FRAME..=MAX_FRAME).contains(&frame.pieces.len()) {
            return Err(Malformed);
        }
        frame.copy_to(&mut self.frame);
        self.plan = Some(Plan::new(&self.frame, &frame.wire_header())?);
        Ok(())
    }

    /// Returns the current frame. `None`: there are no more.
    pub(crate) fn current(&mut self) -> Option<&mut [u8]> {
        let plan = self.plan?;
        if self.next >= plan.count() || plan.write(&self.frame, self.next, &mut self.out).is_err() {
            self.plan = None;
            return None;
        }
        Some(&mut self.out)
    }

    /// Returns true if frames may be left.
    pub(crate) fn is_active(&self) -> bool {
        self.plan.is_some()
    }

    /// Proceeds to the next frame.
    pub(crate) fn advance(&mut self) {
        self.next += 1;
    }

    /// Drops the remaining frames.
    pub(crate) fn stop(&mut self) {
        self.plan = None;
    }
}
