//! Numbers in CDBs and parameter lists: big-endian.

/// 16 bits from `at` on. The caller knows that they are there.
pub(super) const fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// As [`be16`], 32 bits.
pub(super) const fn be32(bytes: &[u8], at: usize) -> u32 {
    (be16(bytes, at) as u32) << 16 | be16(bytes, at + 2) as u32
}

/// As [`be16`], 64 bits.
pub(super) const fn be64(bytes: &[u8], at: usize) -> u64 {
    (be32(bytes, at) as u64) << 32 | be32(bytes, at + 4) as u64
}
