//! Structures and numbers of the format ([MS-VHDX] 2), little-endian, and the checksum over them.

use vmbus_protocol::Guid;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Large structures lie at multiples of this.
pub(super) const MIB: u64 = 1 << 20;
/// The unit of the log.
pub(super) const SECTOR: usize = 4096;

pub(super) const SIGNATURE: &[u8; 8] = b"vhdxfile";
/// Offsets of the two headers.
pub(super) const HEADERS: [u64; 2] = [64 << 10, 128 << 10];
/// Bytes of a header that are checksummed.
pub(super) const HEADER_SIZE: usize = 4096;
/// Offsets of the two copies of the region table.
pub(super) const REGION_TABLES: [u64; 2] = [192 << 10, 256 << 10];
/// Bytes of a region table, and of the table of metadata items.
pub(super) const TABLE_SIZE: usize = 64 << 10;
/// Most entries of either table.
pub(super) const TABLE_ENTRIES: usize = 2047;
/// Largest virtual disk.
pub(super) const MAX_CAPACITY: u64 = 64 << 40;
/// Sectors of a chunk: the number of bits of a sector bitmap block.
pub(super) const CHUNK_SECTORS: u64 = 1 << 23;

/// A header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    pub(super) signature: [u8; 4],
    pub(super) checksum: U32,
    pub(super) sequence: U64,
    /// The id that changes before the first change to the file.
    pub(super) file_write: Guid,
    /// The id that changes before the first change to the disk's content.
    pub(super) data_write: Guid,
    /// The id of the log's entries. Zero: the log is empty.
    pub(super) log: Guid,
    pub(super) log_version: U16,
    pub(super) version: U16,
    pub(super) log_length: U32,
    pub(super) log_offset: U64,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RegionTableHeader {
    pub(super) signature: [u8; 4],
    pub(super) checksum: U32,
    pub(super) entries: U32,
    pub(super) reserved: U32,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RegionEntry {
    pub(super) id: Guid,
    pub(super) offset: U64,
    pub(super) length: U32,
    /// Bit 0: a program that does not know this region must not open the file.
    pub(super) flags: U32,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct MetadataHeader {
    pub(super) signature: [u8; 8],
    pub(super) reserved: U16,
    pub(super) entries: U16,
    pub(super) reserved2: [U32; 5],
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct MetadataEntry {
    pub(super) id: Guid,
    /// Offset from the beginning of the region.
    pub(super) offset: U32,
    pub(super) length: U32,
    /// Bit 0: an item of the user; bit 1: a property of the virtual disk; bit 2: the reader must
    /// know the item.
    pub(super) flags: U32,
    pub(super) reserved: U32,
}

/// The beginning of an entry of the log.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct LogHeader {
    pub(super) signature: [u8; 4],
    pub(super) checksum: U32,
    pub(super) length: U32,
    /// Offset of the beginning of the sequence that ends with this entry.
    pub(super) tail: U32,
    pub(super) sequence: U64,
    pub(super) descriptors: U32,
    pub(super) reserved: U32,
    pub(super) log: Guid,
    /// The file's durable length when this entry was written, or less.
    pub(super) flushed_file_offset: U64,
    /// The least length of the file that holds all of its content.
    pub(super) last_file_offset: U64,
}

/// `desc`: a sector of data follows. `zero`: a range reads as zero.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct LogDescriptor {
    pub(super) signature: [u8; 4],
    /// For data: the last 4 bytes of the sector.
    pub(super) trailing: [u8; 4],
    /// For data: the first 8 bytes of the sector. For zeroes: the bytes of the range.
    pub(super) leading: U64,
    pub(super) offset: U64,
    pub(super) sequence: U64,
}

pub(super) const REGION_BAT: Guid =
    Guid::new(0x2dc2_7766, 0xf623, 0x4200, [0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08]);
pub(super) const REGION_METADATA: Guid =
    Guid::new(0x8b7c_a206, 0x4790, 0x4b9a, [0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e]);
pub(super) const FILE_PARAMETERS: Guid =
    Guid::new(0xcaa1_6737, 0xfa36, 0x4d43, [0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b]);
pub(super) const DISK_SIZE: Guid =
    Guid::new(0x2fa5_4224, 0xcd1b, 0x4876, [0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8]);
pub(super) const DISK_ID: Guid =
    Guid::new(0xbeca_12ab, 0xb2e6, 0x4523, [0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46]);
pub(super) const LOGICAL_SECTOR: Guid =
    Guid::new(0x8141_bf1d, 0xa96f, 0x4709, [0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f]);
pub(super) const PHYSICAL_SECTOR: Guid =
    Guid::new(0xcda3_48c7, 0x445d, 0x4471, [0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56]);
pub(super) const PARENT_LOCATOR: Guid =
    Guid::new(0xa8d3_5f2d, 0xb30b, 0x454d, [0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c]);
/// The only type of parent locator: the parent is a VHDX.
pub(super) const LOCATOR_VHDX: Guid =
    Guid::new(0xb04a_efb7, 0xd19e, 0x4a81, [0xb7, 0x89, 0x25, 0xb8, 0xe9, 0x44, 0x59, 0x13]);

pub(super) const NO_GUID: Guid = Guid::from_bytes([0; 16]);

/// Returns the CRC-32C of a structure. Its checksum field, bytes 4 to 8, counts as zero.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&bytes[..4]);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    crc32c::crc32c_append(crc, &bytes[8..])
}

/// Writes the checksum to bytes 4 to 8.
pub(super) fn seal(bytes: &mut [u8]) {
    let sum = checksum(bytes);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
}

/// Returns whether bytes 4 to 8 hold the checksum.
pub(super) fn is_sealed(bytes: &[u8]) -> bool {
    checksum(bytes).to_le_bytes() == bytes[4..8]
}
