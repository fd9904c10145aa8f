//! A part of a buffer as one piece of memory, for code that cannot work on pieces.

use std::ops::Deref;
use std::ptr::NonNull;

use thiserror::Error;
use vm_memory::VolatileSlice;
use vmbus_protocol::limits::MAX_CONTIGUOUS_RUNS;

use crate::access::BufferError;
use crate::buffer::GuestBuffer;
use crate::gpadl::GpadlView;
use crate::stitch::{StitchError, Stitched};

/// Guest bytes that follow each other in the host's memory, and the owner that keeps them there: a
/// [`GpadlView`], or a borrowed [`GuestBuffer`].
///
/// Where the guest's pages are neighbours anyway this is guest memory itself; else their files are
/// mapped a second time, run behind run. Both show the same bytes as the buffer does, and the guest
/// may change them at any moment. It counts as a use of the view: a GPADL is torn down only after
/// it was dropped.
#[derive(Debug)]
pub struct Contiguous<K> {
    start: NonNull<u8>,
    len: usize,
    // Unmapped before the view is let go of: the order of the fields.
    stitched: Option<Stitched>,
    _keep: K,
}

/// Why a part of a buffer could not be had as one piece. Its slices and iovecs can, always.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ContiguousError {
    /// Not a part of the buffer.
    #[error(transparent)]
    Bounds(#[from] BufferError),
    /// Its runs could not be mapped one behind the other.
    #[error(transparent)]
    Stitch(#[from] StitchError),
}

impl GuestBuffer {
    /// `len` bytes from `offset` as one piece: guest memory itself where they lie in one run, else
    /// a mapping of at most [`MAX_CONTIGUOUS_RUNS`] runs. Making one takes some microseconds a
    /// run, so it pays for memory that is used for long.
    ///
    /// # Errors
    /// [`ContiguousError`]: out of bounds, ranges that meet inside a page, too many runs, or memory that cannot be mapped again.
    pub fn contiguous(
        &self,
        offset: usize,
        len: usize,
    ) -> Result<Contiguous<&Self>, ContiguousError> {
        Contiguous::new(self, offset, len)
    }
}

impl GpadlView {
    /// As [`GuestBuffer::contiguous`], holding this view (a clone of it) instead of borrowing it.
    ///
    /// # Errors
    /// As [`GuestBuffer::contiguous`].
    pub fn contiguous(
        &self,
        offset: usize,
        len: usize,
    ) -> Result<Contiguous<Self>, ContiguousError> {
        Contiguous::new(self.clone(), offset, len)
    }
}

impl<K: Deref<Target = GuestBuffer>> Contiguous<K> {
    /// `keep` must name the same buffer whenever it is asked.
    fn new(keep: K, offset: usize, len: usize) -> Result<Self, ContiguousError> {
        let slices = keep.slices(offset, len)?;
        let mut spans = keep.slices(offset, len)?.spans();
        let first = spans.next();
        let (start, stitched) = match (first, spans.next()) {
            (None, _) => (NonNull::dangling(), None),
            (Some((address, _)), None) => (exposed(address), None),
            (Some(_), Some(_)) => {
                let stitched = Stitched::once(slices, MAX_CONTIGUOUS_RUNS)?;
                (stitched.start(), Some(stitched))
            }
        };
        drop(spans);
        Ok(Self { start, len, stitched, _keep: keep })
    }
}

impl<K> Contiguous<K> {
    /// All of it.
    #[must_use]
    pub fn slice(&self) -> VolatileSlice<'_> {
        // SAFETY: `len` bytes from `start` are one run of guest RAM, which `_keep` keeps mapped, or
        // `stitched` maps them; the slice borrows both.
        unsafe { VolatileSlice::new(self.start.as_ptr(), self.len) }
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when it has no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// True when the pages are mapped a second time, false when this is guest memory itself.
    #[must_use]
    pub fn is_stitched(&self) -> bool {
        self.stitched.is_some()
    }
}

// SAFETY: the pointer names shared memory at a fixed address, which is only handed out as a
// `VolatileSlice`; the rest may be sent as `K` may.
unsafe impl<K: Send> Send for Contiguous<K> {}
// SAFETY: as above.
unsafe impl<K: Sync> Sync for Contiguous<K> {}

/// An address in guest RAM, whose provenance `GuestRam::new` exposed.
fn exposed(address: usize) -> NonNull<u8> {
    NonNull::new(std::ptr::with_exposed_provenance_mut(address)).unwrap_or(NonNull::dangling())
}
