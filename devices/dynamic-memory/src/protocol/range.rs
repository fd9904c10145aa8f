//! Ranges of guest pages, as messages carry them.

use serde::{Deserialize, Serialize};

/// Bits of a range's first page number on the wire; the other 24 bits count its pages.
const FIRST_BITS: u32 = 40;
const FIRST_MASK: u64 = (1 << FIRST_BITS) - 1;

/// Guest pages of 4 KiB: `first..first + pages`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "[u64; 2]", into = "[u64; 2]")]
pub struct PageRange {
    /// The first page frame number.
    pub first: u64,
    /// The number of pages.
    pub pages: u64,
}

impl PageRange {
    /// Maximum pages of a range on the wire.
    pub const MAX_PAGES: u64 = (1 << 24) - 1;

    /// Returns `pages` pages from `first` on.
    pub const fn new(first: u64, pages: u64) -> Self {
        Self { first, pages }
    }

    /// Returns one past the last page. Saturates.
    pub const fn end(self) -> u64 {
        self.first.saturating_add(self.pages)
    }

    /// Returns the range of a message's word: bits 0 to 39 are the first page, bits 40 to 63 the
    /// number of pages.
    pub const fn from_word(word: u64) -> Self {
        Self { first: word & FIRST_MASK, pages: word >> FIRST_BITS }
    }

    /// Returns the word of a message. The range must fit: at most [`PageRange::MAX_PAGES`] pages
    /// below page 2^40.
    pub const fn word(self) -> u64 {
        debug_assert!(self.first <= FIRST_MASK && self.pages <= Self::MAX_PAGES);
        self.first & FIRST_MASK | self.pages << FIRST_BITS
    }
}

impl From<[u64; 2]> for PageRange {
    fn from([first, pages]: [u64; 2]) -> Self {
        Self { first, pages }
    }
}

impl From<PageRange> for [u64; 2] {
    fn from(range: PageRange) -> Self {
        [range.first, range.pages]
    }
}

impl std::fmt::Display for PageRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} pages at {:#x}", self.pages, self.first)
    }
}
