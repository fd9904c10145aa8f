//! Runs: neighbouring pages of guest RAM, as host addresses, 8 bytes each.

use vmbus_protocol::limits::{PAGE_SHIFT, PAGE_SIZE};
use vmbus_protocol::num::usize_of_u64;

/// Bits of a [`Run`] that count its pages; the rest is the host page number (44 bits: host addresses of up to 56 bits).
const COUNT_BITS: u32 = 20;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// A run of pages that are neighbours in guest memory and in the host's mapping of it.
///
/// Packed as host page number << 20 | page count, because a buffer of scattered pages keeps one for every page that the guest lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run(u64);

impl Run {
    /// No page.
    pub(crate) const NONE: Self = Self(0);

    /// A run of one page. Host page numbers have at most 44 bits: `GuestRam` refuses regions beyond that.
    #[inline]
    pub(crate) const fn one(host_page: u64) -> Self {
        Self((host_page << COUNT_BITS) | 1)
    }

    /// The run with one more page. A buffer has at most 65,535 pages, so the 20 bits cannot run over.
    #[inline]
    pub(crate) const fn longer(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    #[inline]
    pub(crate) const fn pages(self) -> usize {
        usize_of_u64(self.0 & COUNT_MASK)
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
