//! Memory descriptor lists: a Windows driver's description of memory.

use alloc::boxed::Box;
use alloc::vec::Vec;

use thiserror::Error;
use vmbus_protocol::limits::PAGE_SIZE;
use vmbus_protocol::num::usize_of;

/// A memory descriptor list: `byte_count` bytes from `byte_offset` of its first locked page, and
/// optionally a next list.
///
/// A chain describes its pieces one behind the other. Pieces may be empty, pages may repeat, and
/// neighbours in the list need not be neighbours in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mdl {
    byte_count: u32,
    byte_offset: u32,
    pages: Vec<u64>,
    next: Option<Box<Mdl>>,
}

/// The error of making an MDL.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum MdlError {
    /// The first byte is not in the first page.
    #[error("byte offset {0:#x} is outside a page")]
    Offset(u32),
    /// The bytes touch more or fewer pages than are listed.
    #[error("{needed} pages hold the bytes, {present} are listed")]
    Pages {
        /// Pages that the bytes touch.
        needed: usize,
        /// Pages listed.
        present: usize,
    },
}

impl Mdl {
    /// One piece: `byte_count` bytes from `byte_offset` (0 to 4,095) into the first of `pages`
    /// (guest page numbers, exactly as many as the bytes touch).
    ///
    /// # Errors
    /// [`MdlError`].
    pub fn new(byte_count: u32, byte_offset: u32, pages: Vec<u64>) -> Result<Self, MdlError> {
        if usize_of(byte_offset) >= PAGE_SIZE {
            return Err(MdlError::Offset(byte_offset));
        }
        let needed = pages_of(byte_offset, byte_count);
        if needed != pages.len() {
            return Err(MdlError::Pages { needed, present: pages.len() });
        }
        Ok(Self { byte_count, byte_offset, pages, next: None })
    }

    /// Returns a piece of whole pages.
    ///
    /// # Errors
    /// [`MdlError::Pages`] when their bytes do not fit 32 bits.
    pub fn of_pages(pages: Vec<u64>) -> Result<Self, MdlError> {
        let bytes = pages.len().checked_mul(PAGE_SIZE).and_then(|bytes| u32::try_from(bytes).ok());
        let limit = usize_of(u32::MAX) / PAGE_SIZE;
        let bytes = bytes.ok_or(MdlError::Pages { needed: limit, present: pages.len() })?;
        Self::new(bytes, 0, pages)
    }

    /// Returns the chain with `tail` behind its last piece.
    #[must_use]
    pub fn chain(mut self, tail: Self) -> Self {
        let mut end = &mut self.next;
        while let Some(mdl) = end {
            end = &mut mdl.next;
        }
        *end = Some(Box::new(tail));
        self
    }

    /// Returns the bytes of this piece.
    #[must_use]
    pub fn byte_count(&self) -> u32 {
        self.byte_count
    }

    /// Returns the offset of this piece in its first page, in bytes.
    #[must_use]
    pub fn byte_offset(&self) -> u32 {
        self.byte_offset
    }

    /// Returns the pages of this piece.
    #[must_use]
    pub fn pages(&self) -> &[u64] {
        &self.pages
    }

    /// Returns the next piece.
    #[must_use]
    pub fn next(&self) -> Option<&Self> {
        self.next.as_deref()
    }

    /// Returns this piece and all later ones.
    pub fn pieces(&self) -> impl Iterator<Item = &Self> + Clone {
        core::iter::successors(Some(self), |mdl| mdl.next())
    }

    /// Returns the bytes of the whole chain.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.pieces().map(|piece| u64::from(piece.byte_count)).sum()
    }

    /// `len` bytes from `offset` into the chain, piece by piece; empty pieces are left out. The
    /// caller has checked the bounds.
    pub(crate) fn ranges(&self, offset: u64, len: u64) -> Vec<Range<'_>> {
        let (mut skip, mut left) = (offset, len);
        let mut ranges = Vec::new();
        for piece in self.pieces() {
            let count = u64::from(piece.byte_count);
            if skip >= count {
                skip -= count;
                continue;
            }
            let take = left.min(count - skip);
            if take == 0 {
                break;
            }
            // All three are below 2^32 + 4096: they count bytes of one piece.
            let start = u64::from(piece.byte_offset) + skip;
            let page = usize::try_from(start / PAGE_SIZE as u64).unwrap_or(usize::MAX);
            let byte_offset = (start % PAGE_SIZE as u64) as u32;
            let byte_count = take as u32;
            let pages = pages_of(byte_offset, byte_count);
            ranges.push(Range { byte_count, byte_offset, pages: &piece.pages[page..page + pages] });
            left -= take;
            skip = 0;
        }
        ranges
    }
}

/// Drops a chain piece by piece, as recursion on a long chain could overflow the stack.
impl Drop for Mdl {
    fn drop(&mut self) {
        let mut next = self.next.take();
        while let Some(mut mdl) = next {
            next = mdl.next.take();
        }
    }
}

/// A range as it goes over the wire: like an MDL piece, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range<'a> {
    pub(crate) byte_count: u32,
    pub(crate) byte_offset: u32,
    pub(crate) pages: &'a [u64],
}

impl<'a> Range<'a> {
    /// The head of the range on the wire: byte count, byte offset << 32.
    pub(crate) fn head(&self) -> u64 {
        u64::from(self.byte_count) | u64::from(self.byte_offset) << 32
    }

    /// The first `pages` pages of the range, and the rest. `pages` must be from 1 to one less than
    /// it has.
    pub(crate) fn split(&self, pages: usize) -> (Self, Self) {
        let (now, later) = self.pages.split_at(pages);
        // At least one page is left, so the bytes in front of it are fewer than the range has.
        let bytes = (pages * PAGE_SIZE) as u32 - self.byte_offset;
        (
            Self { byte_count: bytes, pages: now, ..*self },
            Self { byte_count: self.byte_count - bytes, byte_offset: 0, pages: later },
        )
    }
}

/// Pages that `byte_count` bytes from `byte_offset` touch.
pub(crate) fn pages_of(byte_offset: u32, byte_count: u32) -> usize {
    match byte_count {
        0 => 0,
        count => (usize_of(byte_offset) + usize_of(count)).div_ceil(PAGE_SIZE),
    }
}
