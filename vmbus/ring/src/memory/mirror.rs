//! A data area mapped twice, back to back, from the files behind guest memory.

use std::os::fd::{AsRawFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};

use vm_memory::{GuestMemoryBackend, VolatileSlice};
use vmbus_gpadl::{GuestRam, Slices};
use vmbus_protocol::limits::PAGE_SIZE;

use crate::limits::{MAX_MIRROR_MAPPINGS, MAX_MIRROR_RUNS};

/// Mappings that all mirrors of this process use now.
static MAPPINGS: AtomicUsize = AtomicUsize::new(0);

/// Address space of twice the data size, all of it mapped from guest memory.
pub(crate) struct Mirror {
    base: NonNull<u8>,
    /// Bytes of both copies together.
    bytes: usize,
    _mappings: Budget,
}

// SAFETY: owns a stretch of address space and nothing else; any thread may unmap it.
unsafe impl Send for Mirror {}
// SAFETY: `&Mirror` gives only the address.
unsafe impl Sync for Mirror {}

/// A piece of a file that is mapped as one.
struct FilePiece {
    fd: RawFd,
    offset: libc::off_t,
    bytes: usize,
}

impl Mirror {
    /// Maps `bytes` bytes in `slices` twice. `None` where that cannot be had (memory without a file, too many runs, budget used up, host
    /// refuses, huge pages): such a ring works by page table, so nobody needs to know why.
    ///
    /// The files are those behind `ram`, which the caller keeps, and stay mapped by themselves.
    pub(crate) fn new(slices: Slices<'_>, bytes: usize, ram: &GuestRam) -> Option<Self> {
        let pieces = file_pieces(slices, ram)?;
        let mappings = Budget::take(pieces.len().checked_mul(2)?)?;
        let both = bytes.checked_mul(2)?;
        // SAFETY: asks for fresh address space; touches nothing that exists.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                both,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return None;
        }
        // From here on a failure unmaps all of it.
        let mirror = Self { base: NonNull::new(base.cast())?, bytes: both, _mappings: mappings };
        let mut at = 0_usize;
        for piece in pieces.iter().chain(&pieces) {
            let end = at.checked_add(piece.bytes).filter(|&end| end <= both)?;
            // SAFETY: replaces a part of our own reservation: `at + bytes` is inside it. The file is guest RAM, readable and writable.
            let mapped = unsafe {
                libc::mmap(
                    mirror.base.as_ptr().add(at).cast(),
                    piece.bytes,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_SHARED | libc::MAP_FIXED,
                    piece.fd,
                    piece.offset,
                )
            };
            if mapped == libc::MAP_FAILED {
                return None;
            }
            at = end;
        }
        (at == both).then_some(mirror)
    }

    /// The first byte of the first copy.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        // SAFETY: unmaps what `new` reserved, which nobody uses any more: all addresses were handed out by the owner of this mirror.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// The file pieces behind `slices`, or `None` when there are too many or one has no file.
fn file_pieces(slices: Slices<'_>, ram: &GuestRam) -> Option<Vec<FilePiece>> {
    let mut pieces: Vec<FilePiece> = Vec::with_capacity(MAX_MIRROR_RUNS);
    for slice in slices {
        let piece = file_piece(&slice, ram)?;
        let full = pieces.len() == MAX_MIRROR_RUNS;
        match pieces.last_mut() {
            Some(last) if last.touches(&piece) => last.bytes = last.bytes.checked_add(piece.bytes)?,
            _ if full => return None,
            _ => pieces.push(piece),
        }
    }
    Some(pieces)
}

fn file_piece(slice: &VolatileSlice<'_>, ram: &GuestRam) -> Option<FilePiece> {
    let address = slice.ptr_guard_mut().as_ptr().addr();
    if !address.is_multiple_of(PAGE_SIZE) || !slice.len().is_multiple_of(PAGE_SIZE) {
        return None;
    }
    // A private mapping shows its own copies of written pages, which a second mapping of the file would not.
    let shared = ram.memory().iter().any(|region| {
        region.as_ptr().addr() <= address
            && address.wrapping_sub(region.as_ptr().addr()) < region.size()
            && region.flags() & libc::MAP_SHARED != 0
    });
    if !shared {
        return None;
    }
    let run = ram.file_at(address)?;
    let offset = libc::off_t::try_from(run.offset).ok()?;
    (run.available >= slice.len()).then(|| FilePiece { fd: run.file.as_raw_fd(), offset, bytes: slice.len() })
}

impl FilePiece {
    /// True when `next` begins where this ends.
    fn touches(&self, next: &Self) -> bool {
        let end = libc::off_t::try_from(self.bytes).ok().and_then(|bytes| self.offset.checked_add(bytes));
        self.fd == next.fd && end == Some(next.offset)
    }
}

/// A share of [`MAX_MIRROR_MAPPINGS`], given back on drop.
struct Budget(usize);

impl Budget {
    fn take(count: usize) -> Option<Self> {
        let more = |used: usize| used.checked_add(count).filter(|&sum| sum <= MAX_MIRROR_MAPPINGS);
        MAPPINGS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Self(count))
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        MAPPINGS.fetch_sub(self.0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_mirror_budget_refuses_one_past_the_limit_and_gives_back() {
        assert!(Budget::take(MAX_MIRROR_MAPPINGS + 1).is_none());
        assert!(Budget::take(usize::MAX).is_none());
        for _ in 0..3 {
            // Other tests hold a few mappings at the same time.
            let most = Budget::take(MAX_MIRROR_MAPPINGS / 2).unwrap();
            assert!(Budget::take(MAX_MIRROR_MAPPINGS / 2 + 1).is_none());
            drop(most);
        }
    }
}
