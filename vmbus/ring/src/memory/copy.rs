//! Bulk copies between private memory and memory that a guest may write at the same moment.
//!
//! JUSTIFICATION: the language has no operation for copies of bytes that code outside the program
//! may change at the same time. Atomic or volatile accesses of 8 bytes are closest, at several
//! times the cost for a 4 KiB payload. The machine executes both like `memcpy`: each byte is read
//! or written at some moment. The results are only ever treated as untrusted bytes, which may be
//! any mix of old and new. They are copied once and checked afterwards, and no reference to shared
//! bytes is ever made. vm-memory does the same for the same reason.

use core::ptr::{self, NonNull};

/// Copies `to.len()` bytes from shared memory.
///
/// # Safety
/// `from` must be valid for reads of `to.len()` bytes. Other code may write them meanwhile.
#[inline(always)]
pub(crate) unsafe fn copy_from_shared(from: NonNull<u8>, to: &mut [u8]) {
    // SAFETY: the caller guarantees `from`; `to` is private memory, so the two cannot overlap.
    unsafe { copy(from.as_ptr(), to.as_mut_ptr(), to.len()) }
}

/// Copies all of `from` to shared memory.
///
/// # Safety
/// `to` must be valid for writes of `from.len()` bytes. Other code may read or write them
/// meanwhile.
#[inline(always)]
pub(crate) unsafe fn copy_to_shared(from: &[u8], to: NonNull<u8>) {
    // SAFETY: the caller guarantees `to`; `from` is borrowed from private memory, so the two cannot
    // overlap.
    unsafe { copy(from.as_ptr(), to.as_ptr(), from.len()) }
}

/// Copies `len` bytes. Most packets are short, and for those a call of `memcpy` costs more than the
/// copy. So up to 64 bytes are copied inline, in pieces of a fixed length from both ends that
/// overlap in the middle.
///
/// # Safety
/// As `ptr::copy_nonoverlapping`, except that other code may access the shared side.
#[inline(always)]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: each arm stays inside `len` bytes of both sides.
    unsafe {
        match len {
            0 => {}
            1..4 => {
                let (middle, last) = (len >> 1, len.wrapping_sub(1));
                piece::<1>(from, to, 0);
                piece::<1>(from, to, middle);
                piece::<1>(from, to, last);
            }
            4..8 => ends::<4>(from, to, len),
            8..16 => ends::<8>(from, to, len),
            16..=32 => ends::<16>(from, to, len),
            33..=64 => ends::<32>(from, to, len),
            _ => ptr::copy_nonoverlapping(from, to, len),
        }
    }
}

/// Copies the first `N` and the last `N` of `len` bytes.
///
/// # Safety
/// As [`copy`], and `len` must be at least `N`.
#[inline(always)]
unsafe fn ends<const N: usize>(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: both pieces lie inside, as `len >= N`.
    unsafe {
        piece::<N>(from, to, 0);
        piece::<N>(from, to, len.wrapping_sub(N));
    }
}

/// Copies `N` bytes at `offset`.
///
/// # Safety
/// As [`copy`], for the bytes `offset..offset + N`.
#[inline(always)]
unsafe fn piece<const N: usize>(from: *const u8, to: *mut u8, offset: usize) {
    // SAFETY: the caller guarantees the bytes.
    unsafe { ptr::copy_nonoverlapping(from.add(offset), to.add(offset), N) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_copy_of_every_length_moves_all_bytes_and_no_more() {
        for len in 0..300 {
            let source: Vec<u8> = (0..len).map(|n| n as u8 | 0x80).collect();
            let mut shared = vec![0_u8; len + 16];
            // SAFETY: the buffer has `source.len()` bytes after the first 8.
            unsafe { copy_to_shared(&source, NonNull::new(shared.as_mut_ptr().add(8)).unwrap()) };
            assert_eq!(shared[8..8 + len], source[..]);
            assert!(shared[..8].iter().chain(&shared[8 + len..]).all(|&byte| byte == 0));
            let mut back = vec![0_u8; len];
            // SAFETY: as above.
            unsafe {
                copy_from_shared(NonNull::new(shared.as_mut_ptr().add(8)).unwrap(), &mut back);
            };
            assert_eq!(back, source);
        }
    }
}
