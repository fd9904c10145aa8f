//! Entries of the two levels of tables ("Cluster mapping").

use super::layout::Layout;

/// The table or cluster is used by this entry alone and may be written in place.
pub(super) const COPIED: u64 = 1 << 63;
/// The cluster is compressed.
const COMPRESSED: u64 = 1 << 62;
/// The cluster reads as zero, even if it has an offset (version 3).
pub(super) const ZERO: u64 = 1;
/// The bits with the offset of a table or cluster.
const OFFSET: u64 = 0x00FF_FFFF_FFFF_FE00;

/// The value in memory of an entry that is not valid in the file. No valid entry has this value,
/// because a compressed cluster is never COPIED.
pub(super) const INVALID: u64 = u64::MAX;

/// The state of a cluster of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cluster {
    /// It reads as the backing file, or as zero.
    Unallocated,
    /// It reads as zero. A cluster at `preallocated` is kept for it, unless that is 0.
    Zero {
        /// Offset in the file.
        preallocated: u64,
    },
    /// It lies at `offset` in the data file. If not `copied`, an internal snapshot may share it.
    Data {
        /// First byte.
        offset: u64,
        /// Whether it may be written in place.
        copied: bool,
    },
    /// It is compressed.
    Compressed {
        /// First byte.
        offset: u64,
        /// Length in bytes, up to the end of a sector.
        length: u64,
    },
    /// The entry is not valid.
    Invalid,
}

/// Returns the offset of the second-level table that an entry of the first-level table names; 0:
/// none.
pub(super) fn table_offset(entry: u64) -> u64 {
    entry & OFFSET
}

impl Layout {
    /// Decodes the entry `word` of the cluster at `position` of the disk. The cluster's location is
    /// not checked against the file.
    pub(super) fn decode(self, word: u64, position: u64) -> Cluster {
        if word == INVALID {
            return Cluster::Invalid;
        }
        if word & COMPRESSED != 0 {
            return if self.external { Cluster::Invalid } else { self.compressed(word) };
        }
        let (offset, copied) = (word & OFFSET, word & COPIED != 0);
        let is_aligned = offset.is_multiple_of(self.cluster());
        // A cluster can lie at 0 only in an external data file, in which every cluster lies at its
        // position.
        let is_there = offset != 0 || self.external && copied;
        if !is_aligned || is_there && self.external && offset != position {
            return Cluster::Invalid;
        }
        match word & ZERO != 0 && !self.extended {
            true if self.version < 3 => Cluster::Invalid,
            true => Cluster::Zero { preallocated: offset },
            false if is_there => Cluster::Data { offset, copied: copied || self.external },
            false => Cluster::Unallocated,
        }
    }

    /// Decodes a compressed cluster. The low bits are the offset; the bits above them count further
    /// sectors.
    fn compressed(self, word: u64) -> Cluster {
        let offset_bits = 62 - (self.bits - 8);
        let offset = word & ((1 << offset_bits) - 1);
        let sectors = (word & !(COPIED | COMPRESSED)) >> offset_bits;
        if offset >> 56 != 0 {
            return Cluster::Invalid;
        }
        Cluster::Compressed { offset, length: (sectors + 1) * 512 - offset % 512 }
    }
}

/// The state of a subcluster ("Extended L2 Entries").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subcluster {
    Unallocated,
    Zero,
    Data,
    Invalid,
}

/// Returns the state of the subcluster `index` (0 to 31), by the bitmap of its cluster's entry.
pub(super) fn subcluster(bitmap: u64, index: u64) -> Subcluster {
    match (bitmap >> index & 1 != 0, bitmap >> (32 + index) & 1 != 0) {
        (false, false) => Subcluster::Unallocated,
        (false, true) => Subcluster::Zero,
        (true, false) => Subcluster::Data,
        (true, true) => Subcluster::Invalid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V3: Layout = Layout { bits: 16, version: 3, extended: false, external: false };

    #[test]
    fn test_entry_of_each_kind_is_decoded() {
        for (word, expected) in [
            (0, Cluster::Unallocated),
            (ZERO, Cluster::Zero { preallocated: 0 }),
            (0x50000 | ZERO | COPIED, Cluster::Zero { preallocated: 0x50000 }),
            (0x50000, Cluster::Data { offset: 0x50000, copied: false }),
            (0x50000 | COPIED, Cluster::Data { offset: 0x50000, copied: true }),
            (0x50200 | COPIED, Cluster::Invalid),
            (INVALID, Cluster::Invalid),
            // 8 bits of sectors in clusters of 64 KiB.
            (
                COMPRESSED | 3 << 54 | 0x12345,
                Cluster::Compressed { offset: 0x12345, length: 4 * 512 - 0x145 },
            ),
            (COMPRESSED | 0xFF << 54, Cluster::Compressed { offset: 0, length: 256 * 512 }),
        ] {
            assert_eq!(V3.decode(word, 0), expected, "{word:#x}");
        }
        let v2 = Layout { version: 2, ..V3 };
        assert_eq!(v2.decode(0x50000 | ZERO, 0), Cluster::Invalid, "version 2 has no zero flag");
        let small = Layout { bits: 9, ..V3 };
        // One bit of sectors; the offset has bits that no file reaches.
        assert_eq!(small.decode(COMPRESSED | 1 << 60, 0), Cluster::Invalid);
        assert_eq!(
            small.decode(COMPRESSED | 1 << 61 | 512, 0),
            Cluster::Compressed { offset: 512, length: 1024 }
        );
    }

    #[test]
    fn test_entry_with_an_external_data_file_names_its_own_position() {
        let external = Layout { external: true, ..V3 };
        for (word, position, expected) in [
            (0, 0, Cluster::Unallocated),
            (COPIED, 0, Cluster::Data { offset: 0, copied: true }),
            (COPIED | 0x50000, 0x50000, Cluster::Data { offset: 0x50000, copied: true }),
            (COPIED | 0x50000, 0x60000, Cluster::Invalid),
            (COPIED, 0x60000, Cluster::Invalid),
            (COMPRESSED | 0x50000, 0x50000, Cluster::Invalid),
        ] {
            assert_eq!(external.decode(word, position), expected, "{word:#x} at {position:#x}");
        }
    }

    #[test]
    fn test_subcluster_bits_are_read_in_order() {
        let bitmap = 1 << 3 | 1 << (32 + 4) | 1 << 31 | 1 << 63;
        let found = [0, 3, 4, 31].map(|index| subcluster(bitmap, index));
        assert_eq!(
            found,
            [Subcluster::Unallocated, Subcluster::Data, Subcluster::Zero, Subcluster::Invalid]
        );
    }
}
