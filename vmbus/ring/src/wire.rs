//! Packet framing (vmbus-core 6.2 and 6.3).

use crate::error::RingError;

/// Bytes of a descriptor.
pub(crate) const DESCRIPTOR_BYTES: u32 = 16;
/// Bytes of a trailer.
pub(crate) const TRAILER_BYTES: u32 = 8;
/// Bytes of a descriptor with the fixed part of a range list.
pub(crate) const RANGES_OFFSET: u32 = 24;

const FLAG_COMPLETION_REQUESTED: u16 = 1;

/// The kind of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketKind {
    /// Only a payload.
    InBand,
    /// A payload, and ranges of a transfer-page set that both ends know (host to guest, network
    /// receive).
    TransferPages,
    /// A payload, and ranges of guest pages (guest to host).
    GpaDirect,
    /// The answer to an earlier packet with the same transaction id.
    Completion,
}

impl PacketKind {
    fn from_wire(value: u16) -> Option<Self> {
        Some(match value {
            6 => Self::InBand,
            7 => Self::TransferPages,
            9 => Self::GpaDirect,
            0xB => Self::Completion,
            _ => return None,
        })
    }

    fn to_wire(self) -> u16 {
        match self {
            Self::InBand => 6,
            Self::TransferPages => 7,
            Self::GpaDirect => 9,
            Self::Completion => 0xB,
        }
    }
}

/// A validated descriptor: a local copy, which the peer cannot change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    pub(crate) kind: PacketKind,
    pub(crate) completion_requested: bool,
    pub(crate) transaction_id: u64,
    /// Bytes before the payload: 16 to `length`, a multiple of 8.
    pub(crate) data_offset: u32,
    /// Bytes without the trailer: a multiple of 8. With the trailer they are at most the available
    /// bytes.
    pub(crate) length: u32,
}

impl Descriptor {
    /// Parses the two words of a descriptor, from which on `available` bytes are in the ring.
    /// `None`: it is invalid, see [`Descriptor::fault`].
    #[inline(always)]
    pub(crate) fn parse(words: [u64; 2], available: u32) -> Option<Self> {
        let Fields { kind, data_offset, length, flags } = Fields::of(words);
        let fits = length >= DESCRIPTOR_BYTES
            && data_offset >= DESCRIPTOR_BYTES
            && data_offset <= length
            && length.wrapping_add(TRAILER_BYTES) <= available;
        if !fits {
            return None;
        }
        let kind = PacketKind::from_wire(kind)?;
        let completion_requested = flags & FLAG_COMPLETION_REQUESTED != 0;
        Some(Self { kind, completion_requested, transaction_id: words[1], data_offset, length })
    }

    /// Returns the reason why [`Descriptor::parse`] refused the same words.
    #[cold]
    pub(crate) fn fault(words: [u64; 2], available: u32) -> RingError {
        let Fields { kind, data_offset, length, .. } = Fields::of(words);
        if length < DESCRIPTOR_BYTES {
            RingError::ShortPacket { length }
        } else if data_offset < DESCRIPTOR_BYTES || data_offset > length {
            RingError::DataOffset { data_offset, length }
        } else if length.wrapping_add(TRAILER_BYTES) > available {
            RingError::LongPacket { length, available }
        } else {
            RingError::PacketType { value: kind }
        }
    }

    /// Returns the first word on the wire. `data_offset` and `length` are multiples of 8, at most
    /// 0xFFFF * 8.
    #[inline]
    pub(crate) fn first_word(
        kind: PacketKind,
        completion_requested: bool,
        data_offset: u32,
        length: u32,
    ) -> u64 {
        let flags = if completion_requested { FLAG_COMPLETION_REQUESTED } else { 0 };
        // Fields of 16 bits, lowest first: type, data offset / 8, length / 8, flags.
        u64::from(kind.to_wire())
            | (u64::from(data_offset) << (16 - 3))
            | (u64::from(length) << (32 - 3))
            | (u64::from(flags) << 48)
    }

    /// Returns the bytes of ring that the packet takes.
    #[inline]
    pub(crate) fn total(&self) -> u32 {
        self.length.wrapping_add(TRAILER_BYTES)
    }
}

/// The fields of a descriptor's first word, unchecked.
struct Fields {
    kind: u16,
    /// In bytes, like `length`: at most 0xFFFF * 8, so that sums do not overflow.
    data_offset: u32,
    length: u32,
    flags: u16,
}

impl Fields {
    #[inline(always)]
    fn of([first, _]: [u64; 2]) -> Self {
        let [a, b, c, d, e, f, g, h] = first.to_le_bytes();
        Self {
            kind: u16::from_le_bytes([a, b]),
            data_offset: u32::from(u16::from_le_bytes([c, d])) << 3,
            length: u32::from(u16::from_le_bytes([e, f])) << 3,
            flags: u16::from_le_bytes([g, h]),
        }
    }
}

/// Returns the trailer of a packet that starts at byte `start` of the data.
#[inline]
pub(crate) fn trailer(start: u32) -> u64 {
    u64::from(start) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(kind: u16, data_offset8: u16, length8: u16, flags: u16) -> u64 {
        u64::from(kind)
            | u64::from(data_offset8) << 16
            | u64::from(length8) << 32
            | u64::from(flags) << 48
    }

    /// Checklist 60.
    #[test]
    fn test_ring_descriptor_out_of_bounds_is_refused_with_its_own_error() {
        use RingError::{DataOffset, LongPacket, PacketType, ShortPacket};
        let parse = |word| {
            assert!(Descriptor::parse([word, 7], 64).is_none());
            Descriptor::fault([word, 7], 64)
        };
        assert_eq!(parse(word(6, 2, 1, 0)), ShortPacket { length: 8 });
        assert_eq!(parse(word(6, 0, 0, 0)), ShortPacket { length: 0 });
        assert_eq!(parse(word(6, 1, 2, 0)), DataOffset { data_offset: 8, length: 16 });
        assert_eq!(parse(word(6, 4, 3, 0)), DataOffset { data_offset: 32, length: 24 });
        assert_eq!(parse(word(6, 2, 8, 0)), LongPacket { length: 64, available: 64 });
        assert_eq!(parse(word(6, 2, 0xFFFF, 0)), LongPacket { length: 0xFFFF * 8, available: 64 });
        assert!(Descriptor::parse([word(6, 2, 7, 0), 7], 64).is_some());
        for kind in
            (0..=0x10).chain([0x106, u16::MAX]).filter(|kind| ![6, 7, 9, 0xB].contains(kind))
        {
            assert_eq!(parse(word(kind, 2, 2, 0)), PacketType { value: kind });
        }
    }

    #[test]
    fn test_ring_descriptor_round_trips_every_kind() {
        for kind in [
            PacketKind::InBand,
            PacketKind::TransferPages,
            PacketKind::GpaDirect,
            PacketKind::Completion,
        ] {
            for completion in [false, true] {
                let first = Descriptor::first_word(kind, completion, 24, 0xFFFF * 8);
                let parsed = Descriptor::parse([first, u64::MAX], u32::MAX).unwrap();
                assert_eq!(parsed.kind, kind);
                assert_eq!(parsed.completion_requested, completion);
                assert_eq!(parsed.data_offset, 24);
                assert_eq!(parsed.length, 0xFFFF * 8);
                assert_eq!(parsed.transaction_id, u64::MAX);
            }
        }
    }
}
