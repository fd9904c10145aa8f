//! Widening conversions that cannot lose anything on the hosts we run on, so that no `as` is needed
//! elsewhere.

#[cfg(not(target_pointer_width = "64"))]
compile_error!("SynthVM hosts are 64-bit: guest sizes must fit a usize");

/// `u32` to `usize`: lossless on a 64-bit host.
#[inline]
#[must_use]
#[allow(clippy::as_conversions)]
pub const fn usize_of(value: u32) -> usize {
    value as usize
}

/// `u64` to `usize`: lossless on a 64-bit host.
#[inline]
#[must_use]
#[allow(clippy::as_conversions)]
pub const fn usize_of_u64(value: u64) -> usize {
    value as usize
}

/// `usize` to `u64`: lossless on a 64-bit host.
#[inline]
#[must_use]
#[allow(clippy::as_conversions)]
pub const fn u64_of(value: usize) -> u64 {
    value as u64
}

/// The low 32 bits of a word, as the first of two packed little-endian fields.
#[inline]
#[must_use]
#[allow(clippy::as_conversions)]
pub const fn low_u32(value: u64) -> u32 {
    value as u32
}

/// The high 32 bits of a word, as the second of two packed little-endian fields.
#[inline]
#[must_use]
#[allow(clippy::as_conversions)]
pub const fn high_u32(value: u64) -> u32 {
    (value >> 32) as u32
}
