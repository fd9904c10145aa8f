//! Per-packet information (PPI): optional words beside a frame (netvsc section 4.1).

use super::super::bytes::u32_at;
use super::error::TransmitError;

/// Kinds of per-packet information.
pub(super) mod kind {
    pub(in super::super) const CHECKSUM: u32 = 0;
    pub(in super::super) const LARGE_SEND: u32 = 2;
    pub(in super::super) const VLAN: u32 = 6;
    pub(in super::super) const HASH: u32 = 8;
    /// Bit 31 marks kinds that are not of NDIS.
    pub(in super::super) const FRAGMENT: u32 = 0x8000_0001;
}

/// Bytes of the header of one item.
pub(super) const HEADER: usize = 12;

/// The words that a guest sent beside a frame. The hash is only a hint, so it is not among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PacketInfo {
    pub(super) checksum: Option<u32>,
    pub(super) large_send: Option<u32>,
    pub(super) vlan: Option<u32>,
}

impl PacketInfo {
    /// Reads all items of `area`. Unknown kinds are ignored; of a kind that occurs twice, the last
    /// one counts.
    ///
    /// # Errors
    /// An item is malformed: its size is less than 12, not a multiple of 4, or more than the rest
    /// of the area; its payload begins outside of it; or the payload of a known kind is
    /// incomplete.
    #[inline]
    pub(super) fn parse(mut area: &[u8]) -> Result<Self, TransmitError> {
        let mut info = Self::default();
        while !area.is_empty() {
            let item = next_item(area).ok_or(TransmitError::PacketInfo)?;
            let field = match item.kind {
                kind::CHECKSUM => Some(&mut info.checksum),
                kind::LARGE_SEND => Some(&mut info.large_send),
                kind::VLAN => Some(&mut info.vlan),
                _ => None,
            };
            if let Some(field) = field {
                *field = Some(u32_at(item.payload, 0).ok_or(TransmitError::PacketInfo)?);
            }
            area = item.rest;
        }
        Ok(info)
    }
}

/// One item and the bytes after it.
struct Item<'a> {
    kind: u32,
    payload: &'a [u8],
    rest: &'a [u8],
}

#[inline]
fn next_item(area: &[u8]) -> Option<Item<'_>> {
    let size = u32_at(area, 0)? as usize;
    let kind = u32_at(area, 4)?;
    let payload_offset = u32_at(area, 8)? as usize;
    if size < HEADER || !size.is_multiple_of(4) || payload_offset < HEADER {
        return None;
    }
    let (item, rest) = area.split_at_checked(size)?;
    Some(Item { kind, payload: item.get(payload_offset..)?, rest })
}
