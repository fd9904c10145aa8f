//! Runs: neighbouring pages of guest RAM, as host addresses, 8 bytes each.

use vmbus_protocol::limits::{PAGE_SHIFT, PAGE_SIZE};
use vmbus_protocol::num::usize_of_u64;

/// Number of the bits of a [`Run`] that count its pages. The rest is the host page number (44 bits:
/// host addresses of up to 56 bits).
const COUNT_BITS: u32 = 20;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// A host page with its region: host page number << 20 | tag of the region, which is never 0. The
/// next page of the same region is one [`HostPage::STEP`] more. No other page is, not even a page
/// of another region that happens to follow it in the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostPage(u64);

impl HostPage {
    /// One more than the highest tag of a region.
    pub(crate) const TAGS: usize = 1 << COUNT_BITS;

    /// The value before any page. No page follows it.
    pub(crate) const NONE: Self = Self(0);

    const STEP: u64 = 1 << COUNT_BITS;

    /// Returns the addend for guest page numbers of a region ([`HostPage::of`]), whose first page
    /// `guest` is `host` in the host.
    pub(crate) const fn shift(guest: u64, host: u64, tag: u64) -> u64 {
        (host.wrapping_sub(guest) << COUNT_BITS) | tag
    }

    /// Returns guest page `pfn` of the region of `shift`. High bits of the guest number may be lost
    /// here: the sum is the host's number, which does not have them.
    #[inline]
    pub(crate) const fn of(pfn: u64, shift: u64) -> Self {
        Self((pfn << COUNT_BITS).wrapping_add(shift))
    }

    /// Returns true when this page follows `before` in one region.
    #[inline]
    pub(crate) const fn follows(self, before: Self) -> bool {
        self.0 == before.0.wrapping_add(Self::STEP)
    }
}

/// A run of pages that are neighbours in guest memory and in the host's mapping of it.
///
/// Packed as host page number << 20 | page count, because a buffer of scattered pages has one run
/// for every listed page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run(u64);

impl Run {
    /// A run without a page.
    pub(crate) const NONE: Self = Self(0);

    /// Returns a run of one page. Host page numbers have at most 44 bits: `GuestRam` refuses
    /// regions beyond that.
    #[inline]
    pub(crate) const fn one(page: HostPage) -> Self {
        Self((page.0 & !COUNT_MASK) | 1)
    }

    /// Returns the run with one more page. A buffer has at most 65,535 pages, so the 20 bits cannot
    /// overflow.
    #[inline]
    pub(crate) const fn longer(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    #[inline]
    pub(crate) const fn pages(self) -> usize {
        usize_of_u64(self.0 & COUNT_MASK)
    }

    /// Returns the number of pages, like [`Run::pages`]: 16 bits are enough for a buffer.
    #[inline]
    pub(crate) const fn pages_u16(self) -> u16 {
        let [low, high, ..] = self.0.to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    #[inline]
    pub(crate) const fn host_page(self) -> u64 {
        self.0 >> COUNT_BITS
    }

    /// Returns the host address of the first byte.
    #[inline]
    pub(crate) const fn host_address(self) -> usize {
        usize_of_u64(self.host_page() << PAGE_SHIFT)
    }

    #[inline]
    pub(crate) const fn bytes(self) -> usize {
        self.pages().wrapping_mul(PAGE_SIZE)
    }
}
