//! The entry points of executables: PE32+ and its terse form, TE. They run in place, so an address
//! in the executable is an offset.

use crate::fields::{le16, le32};

const DOS_SIGNATURE: u16 = u16::from_le_bytes(*b"MZ");
const PE_SIGNATURE: u32 = u32::from_le_bytes(*b"PE\0\0");
const TE_SIGNATURE: u16 = u16::from_le_bytes(*b"VZ");
pub(super) const MACHINE_X64: u16 = 0x8664;
const TE_HEADER: usize = 40;

/// Returns the offset of a PE executable's first instruction. An image may have a TE header where
/// a PE header is expected, without a change of the section's type.
pub(super) fn pe_entry(bytes: &[u8]) -> Option<usize> {
    if le16(bytes, 0)? == TE_SIGNATURE {
        return te_entry(bytes);
    }
    let header = if le16(bytes, 0)? == DOS_SIGNATURE { le32(bytes, 0x3C)? as usize } else { 0 };
    let header = bytes.get(header..)?;
    let is_x64 = le32(header, 0)? == PE_SIGNATURE && le16(header, 4)? == MACHINE_X64;
    let entry = le32(header, 40)? as usize;
    (is_x64 && entry < bytes.len()).then_some(entry)
}

/// Returns the offset of a TE executable's first instruction. Its addresses count the headers that
/// were stripped.
pub(super) fn te_entry(bytes: &[u8]) -> Option<usize> {
    let is_x64 = le16(bytes, 0)? == TE_SIGNATURE && le16(bytes, 2)? == MACHINE_X64;
    let stripped = usize::from(le16(bytes, 6)?);
    let entry = (le32(bytes, 8)? as usize).checked_add(TE_HEADER)?.checked_sub(stripped)?;
    (is_x64 && entry < bytes.len()).then_some(entry)
}
