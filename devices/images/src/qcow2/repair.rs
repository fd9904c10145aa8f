//! The repair of reference counts.

use synthvm_block::IoError;

use super::entry::table_offset;
use super::walk::Walk;
use super::{Qcow2, Writer};
use crate::error::Flaw;

/// The repairs that were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Repaired {
    /// Clusters whose count was too low.
    pub(crate) raised: u64,
    /// Clusters whose count was too high.
    pub(crate) lowered: u64,
    /// Bytes that are free again.
    pub(crate) freed: u64,
}

impl Qcow2 {
    /// Records the locations of structures, and refuses an image in which one structure overlaps
    /// another: a write to one would change the other.
    pub(super) fn protect_structures(&self, writer: &Writer) -> Result<(), Flaw> {
        let (header, bits) = (&writer.header, self.layout.bits);
        let end = writer.counts.end();
        let add = |name: &str, offset: u64, bytes: u64| {
            let (first, clusters) = (offset >> bits, self.layout.clusters(bytes));
            let is_aligned = offset.is_multiple_of(self.layout.cluster());
            let is_free =
                (first..first + clusters).all(|cluster| !self.tables.is_protected(cluster));
            if !is_aligned || first + clusters > end || !is_free {
                return Err(Flaw::unsupported(
                    format!(
                        "its {name} at {offset:#x} lies in another structure or outside the file"
                    ),
                    "it can be read with readonly=on; try to repair it with: qemu-img check -r all",
                ));
            }
            self.tables.protect(first, first + clusters);
            Ok(())
        };
        add("header", 0, 1)?;
        add("first-level table", header.l1_offset, header.l1_entries * 8)?;
        add("reference count table", header.counts_offset, header.counts_clusters << bits)?;
        writer.counts.check_blocks(&self.file)?;
        let blocks = writer.counts.blocks().iter().filter(|&&offset| offset != 0);
        blocks.into_iter().try_for_each(|&offset| add("block of reference counts", offset, 1))?;
        let tables = self.tables.l1().into_iter().map(table_offset).filter(|&offset| offset != 0);
        tables.into_iter().try_for_each(|offset| add("second-level table", offset, 1))
    }

    /// Sets the counts to the tables' uses. A crash in between leaves the image dirty.
    pub(super) fn repair(&self, writer: &mut Writer) -> Result<Repaired, Flaw> {
        let walk = self.walk(writer)?;
        if let Some(error) = walk.findings.errors.first() {
            return Err(Flaw::unsupported(
                format!("it was not closed, and more than its reference counts is wrong: {error}"),
                "it can be read with readonly=on; repair it with: qemu-img check -r all",
            ));
        }
        self.add_missing_blocks(writer, &walk)?;
        let repaired = self.set_counts(writer, &walk)?;
        self.file.sync()?;
        writer.header.write_features(&self.file, false)?;
        if walk.clusters() == writer.counts.end() && !walk.findings.foreign {
            // The reserve of the killed writer is used again.
            writer.counts.set_end(walk.end());
        }
        Ok(repaired)
    }

    /// Adds the blocks for used clusters that have none.
    fn add_missing_blocks(&self, writer: &mut Writer, walk: &Walk) -> Result<(), Flaw> {
        let per = writer.counts.per_block();
        let has_block = |index: u64| {
            writer.counts.blocks().get(index as usize).is_some_and(|&offset| offset != 0)
        };
        let is_used =
            |index: u64| (index * per..(index + 1) * per).any(|cluster| walk.uses(cluster) != 0);
        let blocks = walk.end().div_ceil(per);
        let missing: Vec<u64> =
            (0..blocks).filter(|&index| !has_block(index) && is_used(index)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let Writer { header, counts, freed, .. } = writer;
        let appended = counts.append(&self.file, header, 0, &missing).map_err(io)?;
        self.tables.protect(appended.structures.0, appended.structures.1);
        self.tables.set_end(counts.end());
        (appended.replaced.0..appended.replaced.1).for_each(|cluster| freed.push(cluster));
        Ok(())
    }

    /// Sets each count to the number of uses found. Clusters that were added later keep their
    /// counts.
    fn set_counts(&self, writer: &Writer, walk: &Walk) -> Result<Repaired, Flaw> {
        let mut repaired = Repaired::default();
        let (counts, foreign) = (&writer.counts, walk.findings.foreign);
        let known = walk.clusters().min(counts.end());
        counts.change(&self.file, 0, known, |cluster, count| {
            let uses = walk.uses(cluster);
            match count.cmp(&uses) {
                std::cmp::Ordering::Less => {
                    repaired.raised += 1;
                    uses
                }
                std::cmp::Ordering::Greater if !foreign && !walk.is_saturated(cluster) => {
                    repaired.lowered += 1;
                    repaired.freed += if uses == 0 { self.layout.cluster() } else { 0 };
                    uses
                }
                _ => count,
            }
        })?;
        Ok(repaired)
    }

    /// Frees clusters that are counted and not used, and truncates those at the file's end. Does
    /// nothing if there is any other flaw.
    pub(crate) fn free_leaks(&self) -> Result<Repaired, Flaw> {
        let mut writer = self.lock();
        let walk = self.walk(&writer)?;
        if !walk.findings.errors.is_empty() || walk.findings.foreign {
            return Ok(Repaired::default());
        }
        let repaired = self.set_counts(&writer, &walk)?;
        self.file.sync()?;
        if self.file.is_regular()? && walk.end() < writer.counts.end() {
            self.file.cut(walk.end() << self.layout.bits).map_err(io)?;
            self.file.sync()?;
            writer.counts.set_end(walk.end());
        }
        Ok(repaired)
    }
}

fn io(error: IoError) -> Flaw {
    match error {
        IoError::Os(code) => Flaw::Io(std::io::Error::from_raw_os_error(code)),
        IoError::NoSpace => Flaw::Io(std::io::Error::from_raw_os_error(libc::ENOSPC)),
        other => Flaw::Io(std::io::Error::other(other)),
    }
}
