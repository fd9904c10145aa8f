//! Offloads in software, for backends without them: checksums, TCP and UDP segmentation.
//!
//! [`checksum`], [`Headers`] and [`Plan`] are pure functions over bytes. [`SoftwareOffload`] adds
//! the offloads to a backend.

mod backend;
pub mod checksum;
mod headers;
mod segment;
#[cfg(test)]
mod tests;

pub use backend::SoftwareOffload;
pub use headers::{Headers, TCP, UDP};
pub use segment::{MAX_SEGMENTS, Plan};

use crate::vlan::Tag;
use crate::{Frame, MAX_FRAME, vlan};

/// A frame does not have the form that its offload request says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the offload request does not fit the frame")]
pub struct Malformed;

/// A copy of one frame, and the frames that it becomes. It allocates for the first frames only.
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
        let length = frame.pieces.len();
        if !(crate::MIN_FRAME..=MAX_FRAME).contains(&length) {
            return Err(Malformed);
        }
        let tag = frame.tag.map(Tag::to_bytes);
        self.frame.resize(length + tag.map_or(0, |tag| tag.len()), 0);
        let (addresses, rest) = self.frame.split_at_mut(vlan::OFFSET);
        frame.pieces.copy_to(0, addresses);
        let rest = match tag {
            None => rest,
            Some(tag) => {
                let (start, rest) = rest.split_at_mut(tag.len());
                start.copy_from_slice(&tag);
                rest
            }
        };
        frame.pieces.copy_to(vlan::OFFSET, rest);
        self.plan = Some(Plan::new(&self.frame, &frame.wire_header())?);
        Ok(())
    }

    /// Returns the next frame without going on. `None`: there are no more.
    pub(crate) fn current(&mut self) -> Option<&mut [u8]> {
        let plan = self.plan?;
        if self.next >= plan.count() || plan.write(&self.frame, self.next, &mut self.out).is_err() {
            self.plan = None;
            return None;
        }
        Some(&mut self.out)
    }

    /// Goes on to the next frame.
    pub(crate) fn advance(&mut self) {
        self.next += 1;
    }

    /// Drops the frames that are left.
    pub(crate) fn stop(&mut self) {
        self.plan = None;
    }
}
