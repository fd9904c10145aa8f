//! Offsets into a ring's data, which are always inside it and multiples of 8.

use vmbus_protocol::num::usize_of;

/// A byte offset into the data area of one ring. Only [`DataSize`] makes one, so it is below that
/// size and a multiple of 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offset(u32);

impl Offset {
    /// Returns the offset in the form of the control page.
    #[inline]
    pub(crate) const fn get(self) -> u32 {
        self.0
    }

    #[inline]
    pub(crate) const fn index(self) -> usize {
        usize_of(self.0)
    }
}

/// Bytes of one ring's data area: whole pages, at least one, less than 2^31.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DataSize(u32);

impl DataSize {
    /// Returns a data size. `bytes` must be a multiple of the page size, not 0 and below 2^31.
    pub(crate) fn new(bytes: u32) -> Option<Self> {
        (bytes != 0 && bytes.is_multiple_of(4096) && bytes < 1 << 31).then_some(Self(bytes))
    }

    #[inline]
    pub(crate) const fn get(self) -> u32 {
        self.0
    }

    /// Returns the offset for an index of the peer. `None`: the index is invalid.
    #[inline]
    pub(crate) fn check(self, index: u32) -> Option<Offset> {
        (index < self.0 && index & 7 == 0).then_some(Offset(index))
    }

    /// Returns the offset `by` bytes further, around the end. `by` is a multiple of 8 and at most
    /// the size, like every packet length.
    #[inline]
    pub(crate) fn advance(self, from: Offset, by: u32) -> Offset {
        debug_assert!(by <= self.0 && by & 7 == 0);
        // Neither sum nor difference can overflow: both are below 2^32 because the size is below
        // 2^31.
        let to = from.0.wrapping_add(by);
        Offset(if to >= self.0 { to.wrapping_sub(self.0) } else { to })
    }

    /// Returns the bytes that can be read.
    #[inline]
    pub(crate) fn used(self, read: Offset, write: Offset) -> u32 {
        let distance = write.0.wrapping_sub(read.0);
        if write.0 >= read.0 { distance } else { distance.wrapping_add(self.0) }
    }

    /// Returns the bytes that are free; equal indices mean an empty ring. A producer must leave at
    /// least one unit free.
    #[inline]
    pub(crate) fn free(self, read: Offset, write: Offset) -> u32 {
        self.0.wrapping_sub(self.used(read, write))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_offset_check_at_edges_accepts_only_units_inside() {
        let size = DataSize::new(4096).unwrap();
        for (index, good) in [
            (0, true),
            (8, true),
            (4088, true),
            (4, false),
            (4092, false),
            (4096, false),
            (u32::MAX, false),
        ] {
            assert_eq!(size.check(index).is_some(), good, "{index}");
        }
    }

    #[test]
    fn test_offset_advance_and_used_agree_at_every_position() {
        let size = DataSize::new(4096).unwrap();
        for from in (0..4096).step_by(8) {
            for by in (0..4096).step_by(8) {
                let read = size.check(from).unwrap();
                let write = size.advance(read, by);
                assert_eq!(size.used(read, write), by);
                assert_eq!(size.free(read, write), 4096 - by);
            }
        }
        assert_eq!(size.advance(Offset(0), 4096), Offset(0));
    }

    #[test]
    fn test_data_size_out_of_range_is_refused() {
        for bytes in [0, 8, 4095, 1 << 31, u32::MAX] {
            assert!(DataSize::new(bytes).is_none(), "{bytes}");
        }
    }
}
