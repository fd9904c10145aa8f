//! Bulk copies between our memory and memory that a guest may write at the same moment.
//!
//! JUSTIFICATION: the language has no operation for "copy bytes that somebody outside the program may be changing". Atomic or volatile
//! accesses of 8 bytes are the nearest, at several times the cost for a 4 KiB payload. What the machine does is what `memcpy` does: each
//! byte is read or written at some moment. The results are only ever treated as untrusted bytes that may be any mix of old and new; they
//! are copied once and judged afterwards, and no reference to shared bytes is ever made. vm-memory does the same for the same reason.

use std::ptr::{self, NonNull};

/// Copies `to.len()` bytes from shared memory.
///
/// # Safety
/// `from` must be valid for reads of `to.len()` bytes. Others may write them meanwhile.
#[inline]
pub(crate) unsafe fn copy_from_shared(from: NonNull<u8>, to: &mut [u8]) {
    // SAFETY: the caller vouches for `from`; `to` is ours alone, so the two cannot overlap.
    unsafe { ptr::copy_nonoverlapping(from.as_ptr(), to.as_mut_ptr(), to.len()) }
}

/// Copies all of `from` to shared memory.
///
/// # Safety
/// `to` must be valid for writes of `from.len()` bytes. Others may read or write them meanwhile.
#[inline]
pub(crate) unsafe fn copy_to_shared(from: &[u8], to: NonNull<u8>) {
    // SAFETY: the caller vouches for `to`; `from` is borrowed from our own memory, so the two cannot overlap.
    unsafe { ptr::copy_nonoverlapping(from.as_ptr(), to.as_ptr(), from.len()) }
}
