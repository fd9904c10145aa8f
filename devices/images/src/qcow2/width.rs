//! Reference counts of 1 to 64 bits in a block ("Host cluster management").

use std::ops::Range;

/// The width of a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Width {
    /// Log2 of its bits: 0 to 6.
    order: u32,
}

impl Width {
    /// Returns the width of counts of 2^`order` bits; `order` is 6 at most.
    pub(super) fn of_order(order: u32) -> Self {
        Self { order: order.min(6) }
    }

    fn bits(self) -> u32 {
        1 << self.order
    }

    /// Returns the number of counts that `bytes` bytes have space for.
    pub(super) fn per(self, bytes: u64) -> u64 {
        (bytes * 8) >> self.order
    }

    /// Returns the highest count.
    pub(super) fn max(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }

    /// Returns count number `index` of a block. Counts of less than a byte begin with its least
    /// significant bit; others are big-endian.
    pub(super) fn get(self, block: &[u8], index: usize) -> u64 {
        if self.order < 3 {
            let bit = index << self.order;
            return u64::from(block[bit / 8]) >> (bit % 8) & self.max();
        }
        let length = 1 << (self.order - 3);
        let bytes = &block[index * length..][..length];
        bytes.iter().fold(0, |value, &byte| value << 8 | u64::from(byte))
    }

    /// Sets the count. A larger value becomes the highest count.
    pub(super) fn set(self, block: &mut [u8], index: usize, value: u64) {
        let value = value.min(self.max());
        if self.order < 3 {
            let bit = index << self.order;
            let byte = &mut block[bit / 8];
            *byte = *byte & !((self.max() as u8) << (bit % 8)) | (value as u8) << (bit % 8);
            return;
        }
        let length = 1 << (self.order - 3);
        block[index * length..][..length].copy_from_slice(&value.to_be_bytes()[8 - length..]);
    }

    /// Returns the bytes of a block that counts `from` to `to` lie in.
    pub(super) fn bytes(self, from: u64, to: u64) -> Range<usize> {
        ((from << self.order) / 8) as usize..(to << self.order).div_ceil(8) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_counts_of_every_width_are_kept_beside_their_neighbours() {
        for order in 0..=6 {
            let width = Width::of_order(order);
            let mut block = vec![0; 512];
            assert_eq!(width.per(512), 4096 >> order);
            for index in (0..width.per(512) as usize).step_by(2) {
                width.set(&mut block, index, width.max());
            }
            for index in 0..width.per(512) as usize {
                let expected = if index % 2 == 0 { width.max() } else { 0 };
                assert_eq!(width.get(&block, index), expected, "order {order}, index {index}");
            }
            width.set(&mut block, 2, 1);
            assert_eq!([1, 2, 3].map(|index| width.get(&block, index)), [0, 1, 0]);
        }
    }

    #[test]
    fn test_narrow_counts_begin_with_the_least_significant_bit_and_wide_ones_are_big_endian() {
        let mut block = vec![0; 512];
        Width::of_order(0).set(&mut block, 9, 1);
        assert_eq!(block[1], 2);
        Width::of_order(2).set(&mut block, 7, 0xA);
        assert_eq!(block[3], 0xA0);
        Width::of_order(4).set(&mut block, 4, 0x1234);
        assert_eq!(block[8..10], [0x12, 0x34]);
    }

    #[test]
    fn test_bytes_of_a_range_include_shared_ones() {
        assert_eq!(Width::of_order(0).bytes(7, 9), 0..2);
        assert_eq!(Width::of_order(4).bytes(3, 5), 6..10);
        assert_eq!(Width::of_order(6).bytes(0, 64), 0..512);
    }
}
