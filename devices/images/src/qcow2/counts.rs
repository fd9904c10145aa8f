//! Reference counts: the table, its blocks, and clusters added at the end of the file together with
//! their counts.
//!
//! A cluster is handed out only when its count is durable and it reads as zero durably. Dependent
//! writes are in order: a block of counts is durable before the table names it, and a table before
//! the header names it.

use std::io;

use synthvm_block::IoError;

use super::header::Header;
use super::layout::{Layout, MAX_COUNTS};
use super::width::Width;
use crate::error::Flaw;
use crate::file::ImageFile;

/// Blocks beyond the file's end that are inspected: a truncated file may have counts there.
const LOOK_BEYOND: u64 = 4;
/// Empty blocks that are inspected to find the end of the used part of a device: 128 TiB in
/// clusters of 64 KiB.
const MAX_LOOKS: u64 = 65_536;

/// The reference counts of a file.
#[derive(Debug)]
pub(super) struct Counts {
    layout: Layout,
    width: Width,
    /// Offsets of the blocks; 0: all counts of that block are zero.
    table: Vec<u64>,
    /// First cluster behind all used clusters.
    end: u64,
}

/// Clusters that were added at the end of the file.
#[derive(Debug)]
pub(super) struct Appended {
    /// The first of the requested clusters.
    pub(super) first: u64,
    /// Begin and end of the clusters that the counts themselves occupy.
    pub(super) structures: (u64, u64),
    /// Begin and end of the clusters of a table that is no longer used.
    pub(super) replaced: (u64, u64),
}

/// The clusters to add: structures first.
struct Plan {
    /// Indices of the missing blocks.
    blocks: Vec<u64>,
    /// Clusters of the new table. 0: the old table is large enough.
    table_clusters: u64,
    clusters: u64,
}

impl Counts {
    /// Reads the table, at most [`MAX_COUNTS`] bytes of it.
    pub(super) fn read(file: &ImageFile, header: &Header) -> Result<Self, Flaw> {
        let layout = header.layout;
        let mut bytes = vec![0; (header.counts_clusters << layout.bits).min(MAX_COUNTS) as usize];
        file.read(&mut bytes, header.counts_offset)?;
        let words = bytes
            .chunks_exact(8)
            .map(|word| u64::from_be_bytes(std::array::from_fn(|at| word[at])));
        let mut counts = Self {
            layout,
            width: Width::of_order(header.count_order),
            table: words.collect(),
            end: 0,
        };
        counts.end = counts.find_end(file)?;
        Ok(counts)
    }

    /// Refuses a file with parts that have no counts. A missing block past `end` is no error.
    pub(super) fn check(&self, file: &ImageFile) -> Result<(), Flaw> {
        let needed = self.layout.clusters(file.len()?).min(self.end).div_ceil(self.per_block());
        if needed > self.table.len() as u64 {
            return Err(unsound(format!(
                "its reference counts need {} bytes of tables, it has {}",
                needed * 8,
                self.table.len() * 8
            )));
        }
        match (0..needed).find(|&index| self.table[index as usize] == 0) {
            Some(index) => {
                Err(unsound(format!("its block {index} of reference counts is missing")))
            }
            None => self.check_blocks(file),
        }
    }

    /// Refuses blocks that do not lie in the file.
    pub(super) fn check_blocks(&self, file: &ImageFile) -> Result<(), Flaw> {
        let length = file.len()?;
        match self.table.iter().position(|&offset| offset != 0 && !self.lies_in(offset, length)) {
            Some(index) => Err(unsound(format!(
                "its block {index} of reference counts is not in the file ({})",
                self.table[index]
            ))),
            None => Ok(()),
        }
    }

    /// Returns whether a block at `offset` lies in a file of `length` bytes.
    fn lies_in(&self, offset: u64, length: u64) -> bool {
        let cluster = self.layout.cluster();
        offset.is_multiple_of(cluster)
            && offset.checked_add(cluster).is_some_and(|end| end <= length)
    }

    /// Returns the end of the file: behind its last byte and the counted clusters shortly after it.
    /// A device ends behind its last count that is not zero.
    fn find_end(&self, file: &ImageFile) -> io::Result<u64> {
        let (length, is_regular) = (file.len()?, file.is_regular()?);
        let size = if is_regular { self.layout.clusters(length) } else { 1 };
        let blocks = self.table.len() as u64;
        let range = match is_regular {
            true => size / self.per_block()..blocks.min(size / self.per_block() + LOOK_BEYOND),
            false => 0..blocks,
        };
        let mut looks = 0;
        for index in range.rev() {
            let offset = self.table[index as usize];
            if offset == 0 || !self.lies_in(offset, length) {
                continue;
            }
            looks += 1;
            if looks > MAX_LOOKS {
                break;
            }
            let block = self.read_block(file, offset)?;
            let last =
                (0..self.per_block() as usize).rev().find(|&at| self.width.get(&block, at) != 0);
            if let Some(last) = last {
                return Ok(size.max(index * self.per_block() + last as u64 + 1));
            }
        }
        Ok(size)
    }

    /// Returns the number of clusters that one block counts.
    pub(super) fn per_block(&self) -> u64 {
        self.width.per(self.layout.cluster())
    }

    /// Returns the first cluster behind all used clusters.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Returns the offsets of the blocks; 0: none.
    pub(super) fn blocks(&self) -> &[u64] {
        &self.table
    }

    fn read_block(&self, file: &ImageFile, offset: u64) -> io::Result<Vec<u8>> {
        let mut block = vec![0; self.layout.cluster() as usize];
        file.read(&mut block, offset)?;
        Ok(block)
    }

    /// Returns the counts of the clusters of block `index`, in order.
    pub(super) fn read_counts(&self, file: &ImageFile, index: u64) -> io::Result<Vec<u64>> {
        let per = self.per_block() as usize;
        match self.table.get(index as usize) {
            Some(&offset) if offset != 0 => {
                let block = self.read_block(file, offset)?;
                Ok((0..per).map(|at| self.width.get(&block, at)).collect())
            }
            _ => Ok(vec![0; per]),
        }
    }

    /// Changes the counts of clusters `from` to `to` where they have a block, by `change` of each.
    /// Not durable.
    pub(super) fn change(
        &self,
        file: &ImageFile,
        from: u64,
        to: u64,
        mut change: impl FnMut(u64, u64) -> u64,
    ) -> io::Result<()> {
        let per = self.per_block();
        let mut at = from;
        while at < to {
            let (index, next) = (at / per, ((at / per + 1) * per).min(to));
            if let Some(&offset) = self.table.get(index as usize).filter(|&&offset| offset != 0) {
                let mut block = self.read_block(file, offset)?;
                for cluster in at..next {
                    let slot = (cluster % per) as usize;
                    let old = self.width.get(&block, slot);
                    self.width.set(&mut block, slot, change(cluster, old));
                }
                let changed = self.width.bytes(at % per, next - index * per);
                file.write(&block[changed.clone()], offset + changed.start as u64)?;
            }
            at = next;
        }
        Ok(())
    }

    /// Adds `clusters` clusters at the end of the file, each with a count of one and reading as
    /// zero, durably; and blocks of counts for those of `missing` that have none.
    pub(super) fn append(
        &mut self,
        file: &ImageFile,
        header: &mut Header,
        clusters: u64,
        missing: &[u64],
    ) -> Result<Appended, IoError> {
        let plan = self.plan(clusters, missing)?;
        let begin = self.end;
        let table_at = begin + plan.blocks.len() as u64;
        let first = table_at + plan.table_clusters;
        let end = first + clusters;
        self.reserve_space(file, begin, end)?;
        // The counts of existing blocks change first. A crash then leaves clusters that are counted
        // and not used.
        self.change(file, begin, end, |_, _| 1)?;
        let mut table = self.table.clone();
        table.resize(table.len().max((plan.table_clusters << self.layout.bits) as usize / 8), 0);
        self.write_blocks(file, &plan.blocks, begin, end)?;
        for (at, &index) in plan.blocks.iter().enumerate() {
            table[index as usize] = (begin + at as u64) << self.layout.bits;
        }
        if plan.table_clusters != 0 {
            let bytes: Vec<u8> = table.iter().flat_map(|offset| offset.to_be_bytes()).collect();
            file.write(&bytes, table_at << self.layout.bits)?;
        }
        file.sync()?;
        let mut replaced = (0, 0);
        if plan.table_clusters != 0 {
            let old = header.counts_offset >> self.layout.bits;
            replaced = (old, old + header.counts_clusters);
            header.write_counts(file, table_at << self.layout.bits, plan.table_clusters)?;
        } else if let (Some(&low), Some(&high)) = (plan.blocks.first(), plan.blocks.last()) {
            let words = &table[low as usize..=high as usize];
            let bytes: Vec<u8> = words.iter().flat_map(|offset| offset.to_be_bytes()).collect();
            file.write(&bytes, header.counts_offset + low * 8)?;
            file.sync()?;
        }
        self.table = table;
        self.end = end;
        Ok(Appended { first, structures: (begin, first), replaced })
    }

    /// Returns the clusters to add so that `clusters` more clusters, and all clusters added for
    /// their counts, are counted.
    fn plan(&self, clusters: u64, missing: &[u64]) -> Result<Plan, IoError> {
        let per = self.per_block();
        let mut plan = Plan { blocks: Vec::new(), table_clusters: 0, clusters: 0 };
        loop {
            let total = clusters + plan.blocks.len() as u64 + plan.table_clusters;
            let end = self.end.checked_add(total).ok_or(IoError::NoSpace)?;
            let has_block =
                |index: &u64| self.table.get(*index as usize).is_some_and(|&offset| offset != 0);
            let mut blocks: Vec<u64> = (self.end / per..end.div_ceil(per)).collect();
            blocks.extend(missing);
            blocks.retain(|index| !has_block(index));
            blocks.sort_unstable();
            blocks.dedup();
            let entries = blocks.last().map_or(0, |last| last + 1);
            let mut table_clusters = 0;
            if entries > self.table.len() as u64 {
                // The new table is twice as large, so that it moves rarely.
                let bytes = (entries * 8).max(self.table.len() as u64 * 16).min(MAX_COUNTS);
                if entries * 8 > bytes {
                    return Err(IoError::NoSpace);
                }
                table_clusters = self.layout.clusters(bytes);
            }
            if total == plan.clusters
                && blocks == plan.blocks
                && table_clusters == plan.table_clusters
            {
                return Ok(plan);
            }
            plan = Plan { blocks, table_clusters, clusters: total };
        }
    }

    /// Makes clusters `begin` to `end` part of the file, reading as zero.
    fn reserve_space(&self, file: &ImageFile, begin: u64, end: u64) -> Result<(), IoError> {
        let (from, to) = (begin << self.layout.bits, end << self.layout.bits);
        let length = file.len()?;
        if to > length {
            // A device cannot grow.
            file.grow(to).map_err(|error| {
                if error == IoError::Unsupported { IoError::NoSpace } else { error }
            })?;
        }
        // Old content there: a device can have any, a file only in a part of its last cluster.
        file.zero(from, to.min(length).saturating_sub(from))
    }

    /// Writes new blocks in which clusters `begin` to `end` have a count of one. The blocks lie
    /// from `begin` on.
    fn write_blocks(
        &self,
        file: &ImageFile,
        blocks: &[u64],
        begin: u64,
        end: u64,
    ) -> io::Result<()> {
        let (per, size) = (self.per_block(), self.layout.cluster() as usize);
        let mut bytes = vec![0; blocks.len() * size];
        for (block, &index) in bytes.chunks_exact_mut(size).zip(blocks) {
            let (low, high) = (begin.max(index * per), end.min((index + 1) * per));
            for cluster in low..high {
                self.width.set(block, (cluster % per) as usize, 1);
            }
        }
        file.write(&bytes, begin << self.layout.bits)
    }

    /// Marks all clusters from `end` on as unused; the file may be cut off there.
    pub(super) fn set_end(&mut self, end: u64) {
        self.end = end;
    }
}

fn unsound(reason: String) -> Flaw {
    Flaw::unsupported(
        reason,
        "it can be read with readonly=on; repair it with: qemu-img check -r all",
    )
}
