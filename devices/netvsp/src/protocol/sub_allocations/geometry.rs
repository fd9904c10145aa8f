//! Size and number of the sub-allocations of a receive buffer.

use super::super::limits::{
    COALESCED_PARTS, FRAME_OFFSET, MAX_COALESCED_FRAME, MAX_SUB_ALLOCATIONS,
    MIN_COALESCED_SUB_ALLOCATIONS, SUB_ALLOCATION_TRAILER,
};

/// Geometry of a receive buffer, as RECV_BUF_COMPLETE reports it to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    size: u32,
    count: u32,
}

impl Geometry {
    /// Divides a buffer of `length` bytes for frames of at most `max_frame` bytes, the Ethernet
    /// header included. `None`: the buffer is too small for one sub-allocation.
    pub fn new(length: u32, max_frame: u32) -> Option<Self> {
        let size = max_frame
            .checked_add(FRAME_OFFSET + SUB_ALLOCATION_TRAILER)?
            .checked_next_multiple_of(8)?;
        let count = (length / size).min(MAX_SUB_ALLOCATIONS);
        (count > 0).then_some(Self { size, count })
    }

    /// Divides a buffer of `length` bytes as [`Geometry::new`] does, but for coalesced frames too:
    /// the longest one takes [`COALESCED_PARTS`] sub-allocations. A buffer that would have fewer
    /// than [`MIN_COALESCED_SUB_ALLOCATIONS`] is divided for `max_frame` alone.
    pub fn for_coalesced(length: u32, max_frame: u32) -> Option<Self> {
        let part = MAX_COALESCED_FRAME.div_ceil(COALESCED_PARTS);
        Self::new(length, max_frame.max(part))
            .filter(|geometry| geometry.count >= MIN_COALESCED_SUB_ALLOCATIONS)
            .or_else(|| Self::new(length, max_frame))
    }

    /// Returns the bytes of one sub-allocation, a multiple of 8.
    pub fn size(self) -> u32 {
        self.size
    }

    /// Returns the bytes of one sub-allocation that may hold data: all but the last 36.
    pub fn usable(self) -> u32 {
        self.size - SUB_ALLOCATION_TRAILER
    }

    /// Returns the number of sub-allocations, 1..=65,536.
    pub fn count(self) -> u32 {
        self.count
    }

    /// Returns the number of bytes of all sub-allocations together.
    pub fn end(self) -> u32 {
        // At most the length of the buffer.
        self.size.saturating_mul(self.count)
    }

    /// Returns the offset of sub-allocation `index` in the buffer. `None`: there is none.
    pub fn offset(self, index: u32) -> Option<u32> {
        (index < self.count).then(|| self.size.saturating_mul(index))
    }
}
