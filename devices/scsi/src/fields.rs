//! Big-endian numbers in CDBs and parameter lists.

/// Reads 16 bits from `at` on. The caller knows that `bytes` is long enough.
pub(super) const fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Reads 32 bits, like [`be16`].
pub(super) const fn be32(bytes: &[u8], at: usize) -> u32 {
    (be16(bytes, at) as u32) << 16 | be16(bytes, at + 2) as u32
}

/// Reads 64 bits, like [`be16`].
pub(super) const fn be64(bytes: &[u8], at: usize) -> u64 {
    (be32(bytes, at) as u64) << 32 | be32(bytes, at + 4) as u64
}
