//! The block allocation table: an entry for each block of the disk, and behind the entries of each
//! chunk an entry for its sector bitmap.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use super::layout::MIB;
use super::metadata::Metadata;
use super::regions::Region;
use super::structures::Structures;
use crate::error::Flaw;

/// Largest table that is kept in memory, in bytes: 16 TiB of 1 MiB blocks, 64 TiB of 4 MiB blocks.
pub(crate) const MAX_TABLE: u64 = 128 << 20;

/// The state of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It reads as the parent, or as zero.
    NotPresent,
    /// It reads as zero. Undefined and unmapped blocks may read as anything, and here they read as
    /// zero too.
    Zero,
    /// It lies in the file.
    Present,
    /// Some of its sectors lie in the file; the others come from the parent.
    Partial,
}

/// An entry of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry(pub(super) u64);

impl Entry {
    pub(super) const NOT_PRESENT: Self = Self(0);
    pub(super) const ZERO: Self = Self(2);

    /// Returns the entry of a block in the file, from `offset` on, a multiple of 1 MiB.
    pub(super) const fn present(offset: u64) -> Self {
        Self(offset | 6)
    }

    /// Returns the block's state. `None`: the format has no such state.
    pub(super) const fn state(self) -> Option<State> {
        match self.0 & 7 {
            0 => Some(State::NotPresent),
            // In drafts of the format, 5 was the code of an unmapped block.
            1..=3 | 5 => Some(State::Zero),
            6 => Some(State::Present),
            7 => Some(State::Partial),
            _ => None,
        }
    }

    /// Returns the block's offset in the file.
    pub(super) const fn offset(self) -> u64 {
        self.0 & !(MIB - 1)
    }
}

/// The table in memory. Readers take no lock.
#[derive(Debug)]
pub(super) struct Bat {
    entries: Vec<AtomicU64>,
    region: Region,
    ratio: u64,
}

impl Bat {
    /// Reads the whole table, up to the size of its region, so that the disk can grow.
    pub(super) fn read(
        structures: &Structures,
        region: Region,
        metadata: &Metadata,
    ) -> Result<Self, Flaw> {
        let ratio = metadata.chunk_ratio();
        let blocks = metadata.capacity.div_ceil(metadata.block_size);
        let needed = length(blocks, ratio, metadata.parent.is_some()) * 8;
        if needed > region.length {
            return Err(Flaw::damaged(format!(
                "its block allocation table has {} bytes, but its disk needs {needed}",
                region.length
            )));
        }
        if needed > MAX_TABLE {
            let advice = "convert it to one with larger blocks";
            return Err(Flaw::too_large("block allocation table", needed, MAX_TABLE, advice));
        }
        let mut bytes = vec![0; region.length.min(MAX_TABLE) as usize];
        structures.read(&mut bytes, region.offset)?;
        let entries = bytes
            .chunks_exact(8)
            .map(|bytes| AtomicU64::new(u64::from_le_bytes(std::array::from_fn(|i| bytes[i]))))
            .collect();
        Ok(Self { entries, region, ratio })
    }

    /// Returns the entry of a block of the disk.
    pub(super) fn block(&self, block: u64) -> Entry {
        self.get(self.index(block))
    }

    /// Returns the entry of the bitmap of the chunk that has this block.
    pub(super) fn bitmap(&self, block: u64) -> Entry {
        self.get(block / self.ratio * (self.ratio + 1) + self.ratio)
    }

    fn get(&self, index: u64) -> Entry {
        // The index is beyond the table only for the bitmap of a last chunk, which is never
        // written.
        Entry(self.entries.get(index as usize).map_or(0, |entry| entry.load(Ordering::Acquire)))
    }

    /// Returns the number of blocks that the table has space for.
    pub(super) fn room(&self, differencing: bool) -> u64 {
        let entries = self.entries.len() as u64;
        let chunks = entries / (self.ratio + 1);
        match differencing {
            true => chunks * self.ratio,
            false => chunks * self.ratio + entries % (self.ratio + 1),
        }
    }

    /// Writes the entry of a block to the file: one aligned word, which no crash can tear. Lookups
    /// do not see it before [`Bat::publish`].
    pub(super) fn write(
        &self,
        structures: &Structures,
        block: u64,
        entry: Entry,
    ) -> io::Result<()> {
        let offset = self.region.offset + self.index(block) * 8;
        structures.file.write(&entry.0.to_le_bytes(), offset)
    }

    /// Makes the entry visible to lookups.
    pub(super) fn publish(&self, block: u64, entry: Entry) {
        self.entries[self.index(block) as usize].store(entry.0, Ordering::Release);
    }

    const fn index(&self, block: u64) -> u64 {
        // A chunk has a power of two of blocks.
        block + (block >> self.ratio.trailing_zeros())
    }
}

/// Returns the number of entries for so many blocks.
pub(super) fn length(blocks: u64, ratio: u64, differencing: bool) -> u64 {
    if differencing {
        blocks.div_ceil(ratio) * (ratio + 1)
    } else {
        blocks + (blocks.max(1) - 1) / ratio
    }
}
