//! Scattered runs of file-backed guest memory, mapped a second time so that they follow each other.
//!
//! Mappings are made of whole pages of the file behind guest memory. For hugetlbfs (`--hugepages`)
//! these have 2 MiB or more, so runs of 4 KiB pages can hardly ever follow each other there: they
//! are refused, rings then work by page table, and devices by slices and iovecs.

mod pool;
mod space;

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::NonNull;

use thiserror::Error;
use vmbus_protocol::limits::MAX_STITCHED_MAPPINGS;
use vmbus_protocol::num::usize_of_u64;

use crate::ram::GuestRam;
use crate::slices::Slices;
use pool::Pool;
use space::Space;

pub use space::leaked_address_space;

/// Mappings that all stitches of this process use now.
static MAPPINGS: Pool = Pool::new();

/// Address space of its own, all of it mapped from the files behind guest memory. It shows the same
/// bytes as guest memory does, as they change.
///
/// It keeps nothing but its own mappings: whoever holds it must hold the view of those pages, too.
#[derive(Debug)]
pub struct Stitched {
    space: Space,
    /// Offset of the first byte that was asked for in its page.
    in_page: usize,
}

/// Why memory could not be stitched.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StitchError {
    /// Two pieces meet inside a page of the file behind them (4 KiB, or a hugepage): mappings are
    /// made of whole pages.
    #[error(
        "two pieces of the memory meet inside a page of its file, so no mapping can put one behind the other"
    )]
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

/// A piece of a file that is mapped as one: whole pages of that file.
#[derive(Debug)]
struct FilePiece {
    fd: RawFd,
    offset: libc::off_t,
    bytes: usize,
    /// Bytes of one page of the file, as the kernel maps it; a power of two.
    page_size: usize,
}

impl Stitched {
    /// Maps the pages that hold `slices`, in order, when they lie in at most `max_runs` runs. The
    /// first piece may begin and the last may end inside a page.
    ///
    /// # Errors
    /// [`StitchError`].
    pub fn once(slices: Slices<'_>, max_runs: usize) -> Result<Self, StitchError> {
        let (pieces, in_page) = file_pieces(slices, max_runs)?;
        Self::map(&pieces, 1, in_page)
    }

    /// Maps `slices`, which must be whole pages of their file, twice in a row: what runs over the
    /// end goes on at the start.
    ///
    /// # Errors
    /// [`StitchError`].
    pub fn twice(slices: Slices<'_>, max_runs: usize) -> Result<Self, StitchError> {
        let wanted = slices.left();
        let (pieces, in_page) = file_pieces(slices, max_runs)?;
        if in_page != 0 || total_bytes(&pieces) != wanted {
            return Err(StitchError::InsidePage);
        }
        Self::map(&pieces, 2, in_page)
    }

    fn map(pieces: &[FilePiece], times: usize, in_page: usize) -> Result<Self, StitchError> {
        let mappings = pieces.len().saturating_mul(times);
        let share = MAPPINGS.take(mappings).ok_or(StitchError::TooManyMappings)?;
        let bytes = total_bytes(pieces).saturating_mul(times);
        let alignment = pieces.iter().map(|piece| piece.page_size).max().unwrap_or_default();
        let mut space = Space::reserve(bytes, alignment, share).map_err(StitchError::Host)?;
        for piece in (0..times).flat_map(|_| pieces) {
            space.push(piece).map_err(|error| match error.kind() {
                // Small pages of one file put a hugepage of another one inside a hugepage.
                io::ErrorKind::InvalidInput if error.raw_os_error().is_none() => {
                    StitchError::InsidePage
                }
                _ => StitchError::Host(error),
            })?;
        }
        Ok(Self { space, in_page })
    }

    /// The first byte that was asked for; all others follow it.
    #[must_use]
    pub fn start(&self) -> NonNull<u8> {
        // SAFETY: `in_page` is below the size of the first page, and at least that one is mapped.
        unsafe { self.space.first().add(self.in_page) }
    }
}

/// The file pieces behind `slices`, and where in the first page they begin.
fn file_pieces(
    slices: Slices<'_>,
    max_runs: usize,
) -> Result<(Vec<FilePiece>, usize), StitchError> {
    let ram = slices.ram();
    let mut pieces: Vec<FilePiece> = Vec::new();
    let mut in_page = 0;
    // The last piece ends with the end of its last page.
    let mut whole = true;
    for (start, len) in slices.spans() {
        let page_size = ram.file_at(start).ok_or(StitchError::NotShared)?.page_size;
        let lead = start & page_size.wrapping_sub(1);
        if pieces.is_empty() {
            in_page = lead;
        } else if lead != 0 || !whole {
            return Err(StitchError::InsidePage);
        }
        let end = lead.wrapping_add(len);
        let bytes = end.checked_next_multiple_of(page_size).ok_or(StitchError::NotShared)?;
        whole = bytes == end;
        let piece = file_piece(start.wrapping_sub(lead), bytes, page_size, ram)
            .ok_or(StitchError::NotShared)?;
        let full = pieces.len() >= max_runs;
        match pieces.last_mut() {
            Some(last) if last.touches(&piece) => last.bytes = last.bytes.wrapping_add(bytes),
            _ if full => return Err(StitchError::TooManyRuns { limit: max_runs }),
            _ => pieces.push(piece),
        }
    }
    Ok((pieces, in_page))
}

/// The file behind `bytes` bytes of whole pages, or `None` when there is none that could be mapped
/// again.
fn file_piece(start: usize, bytes: usize, page_size: usize, ram: &GuestRam) -> Option<FilePiece> {
    let run = ram.file_at(start)?;
    // A private mapping shows its own copies of written pages, which a second mapping of the file
    // would not.
    if !run.shared || run.available < bytes || run.page_size != page_size {
        return None;
    }
    Some(FilePiece {
        fd: run.file.as_raw_fd(),
        offset: libc::off_t::try_from(run.offset).ok()?,
        bytes,
        page_size,
    })
}

fn total_bytes(pieces: &[FilePiece]) -> usize {
    pieces.iter().fold(0, |sum, piece| sum.saturating_add(piece.bytes))
}

impl FilePiece {
    /// True when `next` begins where this ends.
    fn touches(&self, next: &Self) -> bool {
        let end =
            libc::off_t::try_from(self.bytes).ok().and_then(|bytes| self.offset.checked_add(bytes));
        self.fd == next.fd && end == Some(next.offset)
    }

    /// True when, mapped at `address`, the piece consists of whole pages of its file, so that the
    /// kernel maps exactly these bytes.
    fn is_whole_pages_at(&self, address: usize) -> bool {
        let offset = u64::try_from(self.offset).map(usize_of_u64);
        let numbers = [Ok(address), offset, Ok(self.bytes)];
        numbers
            .iter()
            .all(|number| number.as_ref().is_ok_and(|number| number.is_multiple_of(self.page_size)))
    }
}
