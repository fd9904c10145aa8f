//! Runs: neighbouring pages of guest RAM, as host addresses, 8 bytes each.

use vmbus_protocol::limits::{PAGE_SHIFT, PAGE_SIZE};
use vmbus_protocol::num::usize_of_u64;

/// Bits of a [`Run`] that count its pages; the rest is the host page number (44 bits: host
/// addresses of up to 56 bits).
const COUNT_BITS: u32 = 20;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// A host page with the region that it lies in: host page number << 20 | tag of the region, which
/// is never 0. What follows a page in the same region is one [`HostPage::STEP`] more; no other page
/// is, not even one that happens to follow it in the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostPage(u64);

impl HostPage {
    /// Tags of regions are below this.
    pub(crate) const TAGS: usize = 1 << COUNT_BITS;

    /// Before any page: nothing follows it.
    pub(crate) const NONE: Self = Self(0);

    const STEP: u64 = 1 << COUNT_BITS;

    /// What has to be added to a guest page number of a region ([`HostPage::of`]), whose first page
    /// `guest` is `host` in the host.
    pub(crate) const fn shift(guest: u64, host: u64, tag: u64) -> u64 {
        (host.wrapping_sub(guest) << COUNT_BITS) | tag
    }

    /// Guest page `pfn` of the region that `shift` was made for. The guest number may have bits
    /// that are lost here: the sum is the host's, which has none.
    #[inline]
    pub(crate) const fn of(pfn: u64, shift: u64) -> Self {
        Self((pfn << COUNT_BITS).wrapping_add(shift))
    }

    /// True when this page comes behind `before` in one region.
    #[inline]
    pub(crate) const fn follows(self, before: Self) -> bool {
        self.0 == before.0.wrapping_add(Self::STEP)
    }
}

/// A run of pages that are neighbours in guest memory and in the host's mapping of it.
///
/// Packed as host page number << 20 | page count, because a buffer of scattered pages keeps one for
/// every page that the guest lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run(u64);

impl Run {
    /// No page.
    pub(crate) const NONE: Self = Self(0);

    /// A run of one page. Host page numbers have at most 44 bits: `GuestRam` refuses regions beyond
    /// that.
    #[inline]
    pub(crate) const fn one(page: HostPage) -> Self {
        Self((page.0 & !COUNT_MASK) | 1)
    }

    /// The run with one more page. A buffer has at most 65,535 pages, so the 20 bits cannot run
    /// over.
    #[inline]
    pub(crate) const fn longer(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    #[inline]
    pub(crate) const fn pages(self) -> usize {
        usize_of_u64(self.0 & COUNT_MASK)
    }

    /// As [`Run::pages`]: a buffer has no more than 16 bits can say.
    #[inline]
    pub(crate) const fn pages_u16(self) -> u16 {
        let [low, high, ..] = self.0.to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    #[inline]
    pub(crate) const fn host_page(self) -> u64 {
        self.0 >> COUNT_BITS
    }

    /// Host address of the first byte.
    #[inline]
    pub(crate) const fn host_address(self) -> usize {
        usize_of_u64(self.host_page() << PAGE_SHIFT)
    }

    #[inline]
    pub(crate) const fn bytes(self) -> usize {
        self.pages().wrapping_mul(PAGE_SIZE)
    }
}
