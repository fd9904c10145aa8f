//! The footer, big-endian, at the end of every VHD, and also at the beginning of a dynamic one.

use vmbus_protocol::Guid;
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::Flaw;

/// Bytes of a footer.
pub(super) const SIZE: usize = 512;

/// A footer in the form of the file.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Footer {
    pub(super) cookie: [u8; 8],
    pub(super) features: U32,
    pub(super) version: U32,
    /// Offset of the dynamic header. All ones for fixed disks.
    pub(super) data_offset: U64,
    /// Seconds since 2000.
    pub(super) timestamp: U32,
    pub(super) creator: [u8; 4],
    pub(super) creator_version: U32,
    pub(super) creator_host: [u8; 4],
    pub(super) original_size: U64,
    pub(super) current_size: U64,
    pub(super) cylinders: U16,
    pub(super) heads: u8,
    pub(super) sectors: u8,
    /// 2 fixed, 3 dynamic, 4 differencing.
    pub(super) kind: U32,
    pub(super) checksum: U32,
    pub(super) id: [u8; 16],
    pub(super) saved_state: u8,
    pub(super) reserved: [u8; 427],
}

/// The kinds of disks that a footer may state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Fixed,
    Dynamic,
    Differencing,
}

impl Footer {
    /// Returns the footer of a new fixed disk.
    pub(super) fn fixed(size: u64, id: Guid, timestamp: u32) -> Self {
        let (cylinders, heads, sectors) = geometry(size);
        let mut footer = Self {
            cookie: *b"conectix",
            features: 2.into(),
            version: 0x1_0000.into(),
            data_offset: u64::MAX.into(),
            timestamp: timestamp.into(),
            // The creator determines that readers use the size field, not the geometry.
            creator: *b"win ",
            creator_version: 0x000A_0000.into(),
            creator_host: *b"Wi2k",
            original_size: size.into(),
            current_size: size.into(),
            cylinders: cylinders.into(),
            heads,
            sectors,
            kind: 2.into(),
            checksum: 0.into(),
            id: id.to_bytes(),
            saved_state: 0,
            reserved: [0; 427],
        };
        footer.checksum = checksum(footer.as_bytes()).into();
        footer
    }

    /// Reads and checks a footer.
    pub(super) fn parse(bytes: &[u8; SIZE]) -> Result<(Self, Kind), Flaw> {
        let Ok(footer) = Self::read_from_bytes(bytes) else {
            return Err(Flaw::damaged("its footer is too short"));
        };
        if &footer.cookie != b"conectix" {
            return Err(Flaw::damaged("it has no VHD footer"));
        }
        if footer.checksum.get() != checksum(bytes) {
            return Err(Flaw::damaged("the checksum of its footer is wrong"));
        }
        if footer.version.get() >> 16 != 1 {
            return Err(Flaw::unsupported(
                "it is of an unknown version",
                "convert it with the program that made it",
            ));
        }
        let kind = match footer.kind.get() {
            2 => Kind::Fixed,
            3 => Kind::Dynamic,
            4 => Kind::Differencing,
            other => {
                return Err(Flaw::damaged(format!("its footer says that it is of kind {other}")));
            }
        };
        let size = footer.current_size.get();
        if size == 0 || !size.is_multiple_of(512) || size > 1 << 46 {
            return Err(Flaw::damaged(format!("its footer says that the disk has {size} bytes")));
        }
        Ok((footer, kind))
    }
}

/// Returns the ones' complement of the sum of all bytes except the checksum.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    let at = std::mem::offset_of!(Footer, checksum);
    sum_without(bytes, at)
}

/// Returns the same sum for a structure with its checksum at `at`.
pub(super) fn sum_without(bytes: &[u8], at: usize) -> u32 {
    let sum = |bytes: &[u8]| bytes.iter().fold(0_u32, |sum, &byte| sum.wrapping_add(byte.into()));
    !sum(bytes).wrapping_sub(sum(&bytes[at..at + 4]))
}

/// Returns cylinders, heads and sectors that cover at most `size` bytes, in the way of BIOSes.
fn geometry(size: u64) -> (u16, u8, u8) {
    let total = (size / 512).min(65_535 * 16 * 255);
    if total >= 65_535 * 16 * 63 {
        return ((total / (16 * 255)) as u16, 16, 255);
    }
    let mut sectors = 17;
    let mut tracks = total / sectors;
    let mut heads = tracks.div_ceil(1024).max(4);
    if tracks >= heads * 1024 || heads > 16 {
        (sectors, heads) = (31, 16);
        tracks = total / sectors;
    }
    if tracks >= heads * 1024 {
        (sectors, heads) = (63, 16);
        tracks = total / sectors;
    }
    ((tracks / heads) as u16, heads as u8, sectors as u8)
}
