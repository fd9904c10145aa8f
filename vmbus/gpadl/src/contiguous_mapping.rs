//! Scattered runs of file-backed guest memory, mapped a second time so that they are contiguous.
//!
//! A mapping consists of whole pages of the file behind guest memory. For hugetlbfs (`--hugepages`)
//! these have 2 MiB or more, so runs of 4 KiB pages can hardly ever be contiguous there: they are
//! refused, rings then use a page table, and devices use slices and iovecs.

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

/// The mappings that all contiguous mappings of this process use now.
static MAPPINGS: Pool = Pool::new();

/// A part of the address space that is mapped from the files behind guest memory. It always shows
/// the same bytes as guest memory.
///
/// It keeps only its own mappings, so its owner must also hold the view of those pages.
#[derive(Debug)]
pub struct ContiguousMapping {
    space: Space,
    /// Offset of the first requested byte in its page.
    in_page: usize,
}

/// The reasons that memory cannot be mapped contiguously.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ContiguousMappingError {
    /// Two pieces meet inside a page of the file behind them (4 KiB, or a hugepage). Mappings
    /// consist of whole pages.
    #[error(
        "two pieces of the memory meet inside a page of its file, so no mapping can make them \
        contiguous"
    )]
    InsidePage,
    /// The memory has more runs than the caller permits.
    #[error("the memory lies in more than {limit} runs")]
    TooManyRuns {
        /// The number of runs that the caller permits.
        limit: usize,
    },
    /// Anonymous or private memory cannot be mapped a second time.
    #[error("guest memory has no shared file behind it (a memfd) that could be mapped again")]
    NotShared,
    /// All contiguous mappings together would use more mappings than the limit for this process.
    #[error("more than {MAX_STITCHED_MAPPINGS} mappings in use")]
    TooManyMappings,
    /// The host refused a mapping.
    #[error("mapping guest memory again: {0}")]
    Host(io::Error),
}

/// A piece of a file that is mapped by one call: whole pages of that file.
#[derive(Debug)]
struct FilePiece {
    fd: RawFd,
    offset: libc::off_t,
    bytes: usize,
    /// Bytes of one page of the file, in which the kernel maps it; a power of two.
    page_size: usize,
}

impl ContiguousMapping {
    /// Maps the pages that hold `slices`, in order, when they lie in at most `max_runs` runs. The
    /// first piece may begin and the last may end inside a page.
    ///
    /// # Errors
    /// [`ContiguousMappingError`].
    pub fn once(slices: Slices<'_>, max_runs: usize) -> Result<Self, ContiguousMappingError> {
        let (pieces, in_page) = file_pieces(slices, max_runs)?;
        Self::map(&pieces, 1, in_page)
    }

    /// Maps `slices`, which must be whole pages of their file, twice in a row, so that an access
    /// past the end continues at the start.
    ///
    /// # Errors
    /// [`ContiguousMappingError`].
    pub fn twice(slices: Slices<'_>, max_runs: usize) -> Result<Self, ContiguousMappingError> {
        let wanted = slices.left();
        let (pieces, in_page) = file_pieces(slices, max_runs)?;
        if in_page != 0 || total_bytes(&pieces) != wanted {
            return Err(ContiguousMappingError::InsidePage);
        }
        Self::map(&pieces, 2, in_page)
    }

    fn map(
        pieces: &[FilePiece],
        times: usize,
        in_page: usize,
    ) -> Result<Self, ContiguousMappingError> {
        let mappings = pieces.len().saturating_mul(times);
        let share = MAPPINGS.take(mappings).ok_or(ContiguousMappingError::TooManyMappings)?;
        let bytes = total_bytes(pieces).saturating_mul(times);
        let alignment = pieces.iter().map(|piece| piece.page_size).max().unwrap_or_default();
        let mut space =
            Space::reserve(bytes, alignment, share).map_err(ContiguousMappingError::Host)?;
        for piece in (0..times).flat_map(|_| pieces) {
            space.push(piece).map_err(|error| match error.kind() {
                // The address of a hugepage behind small pages of another file may be inside a
                // hugepage.
                io::ErrorKind::InvalidInput if error.raw_os_error().is_none() => {
                    ContiguousMappingError::InsidePage
                }
                _ => ContiguousMappingError::Host(error),
            })?;
        }
        Ok(Self { space, in_page })
    }

    /// Returns the first requested byte. All others follow it.
    #[must_use]
    pub fn start(&self) -> NonNull<u8> {
        // SAFETY: `in_page` is below the size of the first page, and at least that one is mapped.
        unsafe { self.space.first().add(self.in_page) }
    }
}

/// Returns the file pieces behind `slices`, and their offset in the first page.
fn file_pieces(
    slices: Slices<'_>,
    max_runs: usize,
) -> Result<(Vec<FilePiece>, usize), ContiguousMappingError> {
    let ram = slices.ram();
    let mut pieces: Vec<FilePiece> = Vec::new();
    let mut in_page = 0;
    // Whether the last piece ends with the end of its last page.
    let mut whole = true;
    for (start, len) in slices.spans() {
        let page_size = ram.file_at(start).ok_or(ContiguousMappingError::NotShared)?.page_size;
        let lead = start & page_size.wrapping_sub(1);
        if pieces.is_empty() {
            in_page = lead;
        } else if lead != 0 || !whole {
            return Err(ContiguousMappingError::InsidePage);
        }
        let end = lead.wrapping_add(len);
        let bytes =
            end.checked_next_multiple_of(page_size).ok_or(ContiguousMappingError::NotShared)?;
        whole = bytes == end;
        let piece = file_piece(start.wrapping_sub(lead), bytes, page_size, ram)
            .ok_or(ContiguousMappingError::NotShared)?;
        let full = pieces.len() >= max_runs;
        match pieces.last_mut() {
            Some(last) if last.touches(&piece) => last.bytes = last.bytes.wrapping_add(bytes),
            _ if full => return Err(ContiguousMappingError::TooManyRuns { limit: max_runs }),
            _ => pieces.push(piece),
        }
    }
    Ok((pieces, in_page))
}

/// Returns the file behind `bytes` bytes of whole pages. `None` when there is no file that could be
/// mapped again.
fn file_piece(start: usize, bytes: usize, page_size: usize, ram: &GuestRam) -> Option<FilePiece> {
    let run = ram.file_at(start)?;
    // A private mapping has its own copies of written pages, which a second mapping of the file
    // would not show.
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
    /// Returns true when `next` begins at the end of this piece.
    fn touches(&self, next: &Self) -> bool {
        let end =
            libc::off_t::try_from(self.bytes).ok().and_then(|bytes| self.offset.checked_add(bytes));
        self.fd == next.fd && end == Some(next.offset)
    }

    /// Returns true when the piece, mapped at `address`, consists of whole pages of its file, so
    /// that the kernel maps exactly these bytes.
    fn is_whole_pages_at(&self, address: usize) -> bool {
        let offset = u64::try_from(self.offset).map(usize_of_u64);
        let numbers = [Ok(address), offset, Ok(self.bytes)];
        numbers
            .iter()
            .all(|number| number.as_ref().is_ok_and(|number| number.is_multiple_of(self.page_size)))
    }
}
