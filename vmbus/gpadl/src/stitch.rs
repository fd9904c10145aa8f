//! Scattered runs of file-backed guest memory, mapped a second time so that they follow each other.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};

use thiserror::Error;
use vmbus_protocol::limits::{MAX_STITCHED_MAPPINGS, PAGE_SIZE};

use crate::ram::GuestRam;
use crate::slices::Slices;

/// Mappings that all stitches of this process use now.
static MAPPINGS: Pool = Pool::new();

/// Address space of its own, all of it mapped from the files behind guest memory. It shows the same bytes as guest memory does, as they
/// change.
///
/// It keeps nothing but its own mappings: whoever holds it must hold the view of those pages, too.
#[derive(Debug)]
pub struct Stitched {
    base: NonNull<u8>,
    bytes: usize,
    /// Offset of the first byte that was asked for in its page.
    in_page: usize,
    _mappings: Share<'static>,
}

/// Why memory could not be stitched.
#[derive(Debug, Error)]
pub enum StitchError {
    /// Two pieces meet inside a page: mappings are made of whole pages.
    #[error("two pieces of the memory meet inside a page, so no mapping can put one behind the other")]
    InsidePage,
    /// More runs than the caller wants to map.
    #[error("the memory lies in more than {limit} runs")]
    TooManyRuns {
        /// Runs that it may have.
        limit: usize,
    },
    /// Anonymous or private memory cannot be mapped a second time.
    #[error("guest memory has no shared file behind it (a memfd) that could be mapped again")]
    NotShared,
    /// All stitches together would use more mappings than this process allows itself.
    #[error("more than {MAX_STITCHED_MAPPINGS} mappings in use")]
    TooManyMappings,
    /// The host refused.
    #[error("mapping guest memory again: {0}")]
    Host(io::Error),
}

// SAFETY: owns a stretch of address space and nothing else; any thread may unmap it.
unsafe impl Send for Stitched {}
// SAFETY: `&Stitched` gives only the address.
unsafe impl Sync for Stitched {}

/// A piece of a file that is mapped as one: whole pages.
struct FilePiece {
    fd: RawFd,
    offset: libc::off_t,
    bytes: usize,
}

impl Stitched {
    /// Maps the pages that hold `slices`, in order, when they lie in at most `max_runs` runs. The first piece may begin and the last may end
    /// inside a page.
    ///
    /// # Errors
    /// [`StitchError`].
    pub fn once(slices: Slices<'_>, max_runs: usize) -> Result<Self, StitchError> {
        let (pieces, in_page) = file_pieces(slices, max_runs)?;
        Self::map(&pieces, 1, in_page)
    }

    /// Maps `slices`, which must be whole pages, twice in a row: what runs over the end goes on at the start.
    ///
    /// # Errors
    /// [`StitchError`].
    pub fn twice(slices: Slices<'_>, max_runs: usize) -> Result<Self, StitchError> {
        let wanted = slices.left();
        let (pieces, in_page) = file_pieces(slices, max_runs)?;
        if in_page != 0 || !wanted.is_multiple_of(PAGE_SIZE) {
            return Err(StitchError::InsidePage);
        }
        Self::map(&pieces, 2, in_page)
    }

    fn map(pieces: &[FilePiece], times: usize, in_page: usize) -> Result<Self, StitchError> {
        let mappings = pieces.len().saturating_mul(times);
        let mappings = MAPPINGS.take(mappings).ok_or(StitchError::TooManyMappings)?;
        let once = pieces.iter().fold(0_usize, |sum, piece| sum.saturating_add(piece.bytes));
        let bytes = once.saturating_mul(times);
        let base = reserve(bytes).map_err(StitchError::Host)?;
        // From here on a failure unmaps all of it.
        let stitched = Self { base, bytes, in_page, _mappings: mappings };
        let mut at = 0_usize;
        for piece in (0..times).flat_map(|_| pieces) {
            // SAFETY: replaces a part of our own reservation: `at + piece.bytes` is inside it, as it has the bytes of all pieces. The file is
            // guest RAM, readable and writable.
            let mapped = unsafe {
                libc::mmap(
                    stitched.base.as_ptr().add(at).cast(),
                    piece.bytes,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_SHARED | libc::MAP_FIXED,
                    piece.fd,
                    piece.offset,
                )
            };
            if mapped == libc::MAP_FAILED {
                return Err(StitchError::Host(io::Error::last_os_error()));
            }
            at = at.wrapping_add(piece.bytes);
        }
        Ok(stitched)
    }

    /// The first byte that was asked for; all others follow it.
    #[must_use]
    pub fn start(&self) -> NonNull<u8> {
        // SAFETY: `in_page` is below a page, and at least one is mapped.
        unsafe { self.base.add(self.in_page) }
    }
}

impl Drop for Stitched {
    fn drop(&mut self) {
        // SAFETY: unmaps what `map` reserved, which nobody uses any more: all addresses were handed out by the owner of this value.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// Fresh address space without memory behind it.
fn reserve(bytes: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: touches nothing that exists.
    let base = unsafe {
        libc::mmap(
            ptr::null_mut(),
            bytes,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    match NonNull::new(base.cast::<u8>()) {
        Some(start) if base != libc::MAP_FAILED => Ok(start),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The file pieces behind `slices`, and where in the first page they begin.
fn file_pieces(slices: Slices<'_>, max_runs: usize) -> Result<(Vec<FilePiece>, usize), StitchError> {
    let ram = slices.ram();
    let mut pieces: Vec<FilePiece> = Vec::new();
    let (mut in_page, mut end) = (0, 0);
    for (start, len) in slices.spans() {
        let lead = offset_in_page(start);
        if pieces.is_empty() {
            in_page = lead;
        } else if lead != 0 || offset_in_page(end) != 0 {
            return Err(StitchError::InsidePage);
        }
        end = start.wrapping_add(len);
        let bytes = lead.wrapping_add(len).next_multiple_of(PAGE_SIZE);
        let piece = file_piece(start.wrapping_sub(lead), bytes, ram).ok_or(StitchError::NotShared)?;
        let full = pieces.len() >= max_runs;
        match pieces.last_mut() {
            Some(last) if last.touches(&piece) => last.bytes = last.bytes.wrapping_add(bytes),
            _ if full => return Err(StitchError::TooManyRuns { limit: max_runs }),
            _ => pieces.push(piece),
        }
    }
    Ok((pieces, in_page))
}

/// The file behind `bytes` bytes of whole pages, or `None` when there is none that could be mapped again.
fn file_piece(start: usize, bytes: usize, ram: &GuestRam) -> Option<FilePiece> {
    let run = ram.file_at(start)?;
    // A private mapping shows its own copies of written pages, which a second mapping of the file would not.
    if !run.shared || run.available < bytes {
        return None;
    }
    Some(FilePiece { fd: run.file.as_raw_fd(), offset: libc::off_t::try_from(run.offset).ok()?, bytes })
}

impl FilePiece {
    /// True when `next` begins where this ends.
    fn touches(&self, next: &Self) -> bool {
        let end = libc::off_t::try_from(self.bytes).ok().and_then(|bytes| self.offset.checked_add(bytes));
        self.fd == next.fd && end == Some(next.offset)
    }
}

fn offset_in_page(address: usize) -> usize {
    address & PAGE_SIZE.wrapping_sub(1)
}

/// How many mappings are in use.
#[derive(Debug)]
struct Pool(AtomicUsize);

/// A part of [`MAX_STITCHED_MAPPINGS`], given back on drop.
#[derive(Debug)]
struct Share<'a> {
    pool: &'a Pool,
    mappings: usize,
}

impl Pool {
    const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    fn take(&self, mappings: usize) -> Option<Share<'_>> {
        let more = |used: usize| used.checked_add(mappings).filter(|&sum| sum <= MAX_STITCHED_MAPPINGS);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Share { pool: self, mappings })
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.pool.0.fetch_sub(self.mappings, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_stitch_mappings_at_the_limit_are_given_and_one_past_it_is_not() {
        let pool = Pool::new();
        let most = pool.take(MAX_STITCHED_MAPPINGS - 2).unwrap();
        assert!(pool.take(3).is_none());
        let rest = pool.take(2).unwrap();
        assert!(pool.take(1).is_none());
        drop(rest);
        assert!(pool.take(usize::MAX).is_none());
        assert!(pool.take(2).is_some());
        drop(most);
        assert!(pool.take(MAX_STITCHED_MAPPINGS + 1).is_none());
        assert!(pool.take(MAX_STITCHED_MAPPINGS).is_some());
    }
}
