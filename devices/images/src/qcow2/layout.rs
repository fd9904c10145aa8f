//! The structures of a qcow2 file (QEMU, docs/interop/qcow2.rst). All numbers are big-endian.

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First bytes of the file.
pub(super) const MAGIC: &[u8; 4] = b"QFI\xFB";

/// Bytes of a header of version 2.
pub(super) const HEADER_V2: u32 = 72;
/// Bytes of a header of version 3, at least.
pub(super) const HEADER_V3: u32 = 104;

/// The fields of the header up to its length ("Header").
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawHeader {
    pub(super) magic: [u8; 4],
    pub(super) version: U32,
    pub(super) backing_offset: U64,
    pub(super) backing_length: U32,
    pub(super) cluster_bits: U32,
    pub(super) size: U64,
    pub(super) encryption: U32,
    pub(super) l1_entries: U32,
    pub(super) l1_offset: U64,
    pub(super) counts_offset: U64,
    pub(super) counts_clusters: U32,
    pub(super) snapshots: U32,
    pub(super) snapshots_offset: U64,
    /// The fields from here on exist in version 3 only.
    pub(super) incompatible: U64,
    pub(super) compatible: U64,
    pub(super) autoclear: U64,
    /// Log2 of the bits of a reference count; 4 in version 2.
    pub(super) count_order: U32,
    pub(super) header_length: U32,
}

/// Offsets of header fields that are written one by one.
pub(super) const AT_SIZE: u64 = 24;
pub(super) const AT_L1: u64 = 36;
pub(super) const AT_COUNTS: u64 = 48;
pub(super) const AT_FEATURES: u64 = 72;
/// Compression type, one byte ("Additional fields").
pub(super) const AT_COMPRESSION: usize = 104;

/// Incompatible features.
pub(super) const DIRTY: u64 = 1 << 0;
pub(super) const CORRUPT: u64 = 1 << 1;
pub(super) const EXTERNAL_DATA: u64 = 1 << 2;
pub(super) const COMPRESSION: u64 = 1 << 3;
pub(super) const EXTENDED_ENTRIES: u64 = 1 << 4;

/// The autoclear feature that stays true when the disk changes: the external data file is a raw
/// image.
pub(super) const RAW_EXTERNAL: u64 = 1 << 1;

/// Header extensions.
pub(super) const EXTENSION_END: u32 = 0;
pub(super) const EXTENSION_BACKING_FORMAT: u32 = 0xE279_2ACA;
pub(super) const EXTENSION_BITMAPS: u32 = 0x2385_2875;
pub(super) const EXTENSION_ENCRYPTION: u32 = 0x0537_BE77;
pub(super) const EXTENSION_DATA_FILE: u32 = 0x4441_5441;

/// The fixed part of an entry of the snapshot table ("Snapshots").
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawSnapshot {
    pub(super) l1_offset: U64,
    pub(super) l1_entries: U32,
    pub(super) id_length: U16,
    pub(super) name_length: U16,
    pub(super) seconds: U32,
    pub(super) nanoseconds: U32,
    pub(super) running: U64,
    pub(super) state_length: U32,
    pub(super) extra_length: U32,
}

/// Largest first-level table in bytes, as in QEMU: 2 EiB in clusters of 2 MiB, 128 GiB in the
/// smallest.
pub(super) const MAX_L1: u64 = 32 << 20;
/// Largest reference count table in bytes, as in QEMU.
pub(super) const MAX_COUNTS: u64 = 8 << 20;

/// The sizes from which all others are derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Log2 of the bytes of a cluster: 9 to 21.
    pub(super) bits: u32,
    /// 2 or 3.
    pub(super) version: u32,
    /// Entries of second-level tables have 16 bytes and a bit for each of 32 subclusters.
    pub(super) extended: bool,
    /// The disk's bytes lie in an external data file, each at its offset on the disk.
    pub(super) external: bool,
}

impl Layout {
    /// Returns the bytes of a cluster.
    pub(super) fn cluster(self) -> u64 {
        1 << self.bits
    }

    /// Returns the 8-byte words of one entry of a second-level table.
    pub(super) fn words(self) -> usize {
        if self.extended { 2 } else { 1 }
    }

    /// Returns the entries of a second-level table.
    pub(super) fn entries(self) -> u64 {
        self.cluster() / 8 / self.words() as u64
    }

    /// Returns the bytes of the disk that one second-level table covers.
    pub(super) fn reach(self) -> u64 {
        self.cluster() * self.entries()
    }

    /// Returns the least number of entries of the first-level table of a disk of `capacity` bytes.
    pub(super) fn l1_entries(self, capacity: u64) -> u64 {
        capacity.div_ceil(self.reach())
    }

    /// Returns the clusters that `bytes` take up.
    pub(super) fn clusters(self, bytes: u64) -> u64 {
        bytes.div_ceil(self.cluster())
    }
}
