//! Packets with data outside the ring: GPA-direct and transfer pages (vmbus-core 6.3).

use alloc::vec::Vec;

#[cfg(feature = "std")]
use vmbus_gpadl::{GuestBuffer, RangeAssembler};
#[cfg(feature = "std")]
use vmbus_protocol::limits::{MAX_GPA_DIRECT_BYTES, MAX_GPA_DIRECT_RANGES};
#[cfg(feature = "std")]
use vmbus_protocol::num::u64_of;
use vmbus_protocol::num::{high_u32, low_u32, usize_of};

use crate::error::PacketError;
use crate::packet::Packet;
use crate::wire::{DESCRIPTOR_BYTES, PacketKind, RANGES_OFFSET};

/// Bytes of a range list that are copied out of the ring at a time: 64 page numbers, the most in a
/// request of 256 KiB.
#[cfg(feature = "std")]
const CHUNK_BYTES: usize = 512;

/// One range of guest pages: `byte_count` bytes from `byte_offset` into the first of `pages`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpaRange<'a> {
    /// Bytes; must not be 0.
    pub byte_count: u32,
    /// First byte in the first page, 0 to 4,095.
    pub byte_offset: u32,
    /// Guest page numbers, as many as the bytes cover.
    pub pages: &'a [u64],
}

/// One range of a transfer-page set, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransferRange {
    /// Bytes.
    pub byte_count: u32,
    /// Offset of the first byte in the set.
    pub byte_offset: u32,
}

impl Packet<'_> {
    /// Reads the guest memory of a GPA-direct packet into `buffer`, which is emptied first. There
    /// is no allocation once the buffer has held a list of that length. Any number of ranges of any
    /// number of pages is possible; every page is checked to be guest RAM.
    ///
    /// # Errors
    /// [`PacketError`]; the buffer is then empty.
    #[cfg(feature = "std")]
    #[inline]
    pub fn gpa_direct(&self, buffer: &mut GuestBuffer) -> Result<(), PacketError> {
        let filled = self.fill(buffer);
        if filled.is_err() {
            buffer.clear();
        }
        filled
    }

    #[cfg(feature = "std")]
    #[inline]
    fn fill(&self, buffer: &mut GuestBuffer) -> Result<(), PacketError> {
        if self.kind() != PacketKind::GpaDirect {
            return Err(PacketError::NoExternalData);
        }
        // The low half is reserved and may have any value.
        let (_, count) = self.range_head(MAX_GPA_DIRECT_RANGES)?;
        let mut left = usize_of(self.header_len().wrapping_sub(RANGES_OFFSET));
        let mut assembler = RangeAssembler::begin(buffer, count, left)?;
        let mut offset = usize_of(RANGES_OFFSET);
        let mut chunk = [0_u8; CHUNK_BYTES];
        loop {
            let len = left.min(CHUNK_BYTES);
            let Some(piece) = chunk.get_mut(..len).filter(|piece| !piece.is_empty()) else {
                return Err(PacketError::RangeList);
            };
            self.read_at(offset, piece);
            let complete = assembler.push(piece)?;
            // A range may claim far more bytes than its pages so far. This check stops a list that
            // will be refused before its pages are collected.
            if u64_of(assembler.buffer().listed_bytes()) > MAX_GPA_DIRECT_BYTES {
                return Err(PacketError::TooManyBytes { limit: MAX_GPA_DIRECT_BYTES });
            }
            if complete {
                return assembler.finish().map(drop).ok_or(PacketError::RangeList);
            }
            left = left.wrapping_sub(len);
            offset = offset.wrapping_add(len);
        }
    }

    /// Reads the ranges of a transfer-pages packet into `ranges`, which is emptied first. Returns
    /// the id of their set.
    ///
    /// # Errors
    /// [`PacketError`]; `ranges` is then empty.
    pub fn transfer_pages(&self, ranges: &mut Vec<TransferRange>) -> Result<u16, PacketError> {
        ranges.clear();
        if self.kind() != PacketKind::TransferPages {
            return Err(PacketError::NoExternalData);
        }
        let room = self.header_len().saturating_sub(RANGES_OFFSET) / 8;
        let (head, count) = self.range_head(u32::MAX)?;
        if count > room {
            return Err(PacketError::RangeList);
        }
        let mut word = [0_u8; 8];
        for index in 0..usize_of(count) {
            self.read_at(usize_of(RANGES_OFFSET).wrapping_add(index.wrapping_mul(8)), &mut word);
            let word = u64::from_le_bytes(word);
            ranges.push(TransferRange { byte_count: low_u32(word), byte_offset: high_u32(word) });
        }
        let [low, high, ..] = head.to_le_bytes();
        Ok(u16::from_le_bytes([low, high]))
    }

    /// Reads the word before the ranges: its type-specific half, and the count of ranges.
    #[inline]
    fn range_head(&self, limit: u32) -> Result<(u32, u32), PacketError> {
        let header = self.header_len();
        if header < RANGES_OFFSET {
            return Err(PacketError::ShortHeader { header });
        }
        let mut word = [0_u8; 8];
        self.read_at(usize_of(DESCRIPTOR_BYTES), &mut word);
        let word = u64::from_le_bytes(word);
        let count = high_u32(word);
        if count == 0 || count > limit {
            return Err(PacketError::RangeCount { count, limit });
        }
        Ok((low_u32(word), count))
    }
}

/// Builds the header of a GPA-direct packet in `to`, which is emptied first, for the end that sends
/// one.
pub fn gpa_direct_header(ranges: &[GpaRange<'_>], to: &mut Vec<u8>) {
    to.clear();
    to.extend_from_slice(&[0; 4]);
    to.extend_from_slice(&u32::try_from(ranges.len()).unwrap_or(u32::MAX).to_le_bytes());
    for range in ranges {
        to.extend_from_slice(&range.byte_count.to_le_bytes());
        to.extend_from_slice(&range.byte_offset.to_le_bytes());
        for page in range.pages {
            to.extend_from_slice(&page.to_le_bytes());
        }
    }
}

/// Builds the header of a transfer-pages packet in `to`, which is emptied first, for the end that
/// sends one.
pub fn transfer_pages_header(set: u16, ranges: &[TransferRange], to: &mut Vec<u8>) {
    let count = u32::try_from(ranges.len()).unwrap_or(u32::MAX);
    let head = u64::from(set) | (u64::from(count) << 32);
    to.clear();
    to.extend_from_slice(&head.to_le_bytes());
    to.extend(ranges.iter().flat_map(|range| {
        (u64::from(range.byte_count) | (u64::from(range.byte_offset) << 32)).to_le_bytes()
    }));
}
