//! A buffer for data in memory that the storage cannot access directly.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use super::limits::BOUNCE;

const LAYOUT: Layout = match Layout::from_size_align(BOUNCE, 4096) {
    Ok(layout) => layout,
    Err(_) => panic!("a power of two"),
};

/// An aligned buffer.
#[derive(Debug)]
pub(super) struct Bounce {
    base: NonNull<u8>,
}

// SAFETY: it is plain memory, owned.
unsafe impl Send for Bounce {}

impl Bounce {
    pub(super) fn new() -> Self {
        // SAFETY: the layout has a size.
        let base = NonNull::new(unsafe { alloc_zeroed(LAYOUT) });
        Self { base: base.unwrap_or_else(|| handle_alloc_error(LAYOUT)) }
    }

    /// Returns the beginning of the buffer, which has [`BOUNCE`] bytes.
    pub(super) fn as_ptr(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Fills the buffer with the first `len` bytes of `pieces`, which lie in guest memory.
    pub(super) fn gather(&mut self, pieces: &[libc::iovec], len: usize) {
        each(pieces, len, |piece, at, count| {
            // SAFETY: `at + count` is at most BOUNCE; the piece is mapped. The guest may write the
            // piece concurrently, and any bytes are valid.
            unsafe { std::ptr::copy(piece, self.base.as_ptr().add(at), count) };
        });
    }

    /// Copies the first `len` bytes of the buffer to `pieces`.
    pub(super) fn scatter(&self, pieces: &[libc::iovec], len: usize) {
        each(pieces, len, |piece, at, count| {
            // SAFETY: as in `gather`; the request permits writes to the piece.
            unsafe { std::ptr::copy(self.base.as_ptr().add(at), piece, count) };
        });
    }
}

impl Drop for Bounce {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.base.as_ptr(), LAYOUT) };
    }
}

/// Calls `act` for each part of the first `len` bytes of `pieces`, with its address, its distance
/// from the start, and its length.
fn each(pieces: &[libc::iovec], len: usize, mut act: impl FnMut(*mut u8, usize, usize)) {
    let len = len.min(BOUNCE);
    let mut at = 0;
    for piece in pieces {
        let count = piece.iov_len.min(len - at);
        act(piece.iov_base.cast(), at, count);
        at += count;
        if at == len {
            break;
        }
    }
}
