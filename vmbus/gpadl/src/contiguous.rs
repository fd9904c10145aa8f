//! A part of a buffer as one piece of memory, for code that cannot work on pieces.

use std::ops::Deref;
use std::ptr::NonNull;

use thiserror::Error;
use vm_memory::VolatileSlice;
use vmbus_protocol::limits::MAX_CONTIGUOUS_RUNS;

use crate::access::BufferError;
use crate::buffer::GuestBuffer;
use crate::contiguous_mapping::{ContiguousMapping, ContiguousMappingError};
use crate::gpadl::GpadlView;

/// Guest bytes that are contiguous in the host's memory, and the owner that keeps them there: a
/// [`GpadlView`], or a borrowed [`GuestBuffer`].
///
/// If the guest's pages are neighbours anyway, this is guest memory itself. Otherwise their files
/// are mapped a second time, one run after the other. Both show the same bytes as the buffer, and
/// the guest may change them at any moment. It counts as a use of the view: a GPADL is torn down
/// only after this value was dropped.
/// it was dropped.
#[derive(Debug)]
pub struct Contiguous<K> {
    start: NonNull<u8>,
    len: usize,
    // Fields drop in order: the memory is unmapped before the view is released.
    mapping: Option<ContiguousMapping>,
    _keep: K,
}

/// The reasons that a part of a buffer cannot be contiguous. Its slices and iovecs are always
/// available.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ContiguousError {
    /// The bytes are not a part of the buffer.
    #[error(transparent)]
    Bounds(#[from] BufferError),
    /// The runs cannot be mapped one after the other.
    #[error(transparent)]
    Mapping(#[from] ContiguousMappingError),
}

impl GuestBuffer {
    /// Returns `len` bytes from `offset` as contiguous memory: guest memory itself if they lie in
    /// one run, otherwise a mapping of at most [`MAX_CONTIGUOUS_RUNS`] runs. A mapping takes some
    /// microseconds a run, so it pays off for memory that is used for long.
    ///
    /// # Errors
    /// [`ContiguousError`]: out of bounds, ranges that meet inside a page, too many runs, or memory
    /// that cannot be mapped again.
    pub fn contiguous(
        &self,
        offset: usize,
        len: usize,
    ) -> Result<Contiguous<&Self>, ContiguousError> {
        Contiguous::new(self, offset, len)
    }
}

impl GpadlView {
    /// Returns contiguous memory, like [`GuestBuffer::contiguous`]. It holds a clone of this view
    /// instead of a borrow.
    ///
    /// # Errors
    /// The errors of [`GuestBuffer::contiguous`].
    pub fn contiguous(
        &self,
        offset: usize,
        len: usize,
    ) -> Result<Contiguous<Self>, ContiguousError> {
        Contiguous::new(self.clone(), offset, len)
    }
}

impl<K: Deref<Target = GuestBuffer>> Contiguous<K> {
    /// Maps a part of the buffer of `keep`, which must dereference to the same buffer each time.
    fn new(keep: K, offset: usize, len: usize) -> Result<Self, ContiguousError> {
        let slices = keep.slices(offset, len)?;
        let mut spans = keep.slices(offset, len)?.spans();
        let first = spans.next();
        let (start, mapping) = match (first, spans.next()) {
            (None, _) => (NonNull::dangling(), None),
            (Some((address, _)), None) => (exposed(address), None),
            (Some(_), Some(_)) => {
                let mapping = ContiguousMapping::once(slices, MAX_CONTIGUOUS_RUNS)?;
                (mapping.start(), Some(mapping))
            }
        };
        drop(spans);
        Ok(Self { start, len, mapping, _keep: keep })
    }
}

impl<K> Contiguous<K> {
    /// Returns all of the memory.
    #[must_use]
    pub fn slice(&self) -> VolatileSlice<'_> {
        // SAFETY: `len` bytes from `start` are one run of guest RAM, which `_keep` keeps mapped, or
        // `mapping` maps them; the slice borrows both.
        unsafe { VolatileSlice::new(self.start.as_ptr(), self.len) }
    }

    /// Returns true when the pages are mapped a second time, and false when this is guest memory
    /// itself.
    #[must_use]
    pub fn is_remapped(&self) -> bool {
        self.mapping.is_some()
    }
}

// SAFETY: the pointer names shared memory at a fixed address, which is only handed out as a
// `VolatileSlice`; the rest may be sent as `K` may.
unsafe impl<K: Send> Send for Contiguous<K> {}
// SAFETY: as above.
unsafe impl<K: Sync> Sync for Contiguous<K> {}

/// Returns a pointer to an address in guest RAM, whose provenance `GuestRam::new` exposed.
fn exposed(address: usize) -> NonNull<u8> {
    NonNull::new(std::ptr::with_exposed_provenance_mut(address)).unwrap_or(NonNull::dangling())
}
