//! The walk over the whole image, which finds the uses of the file's clusters and compares them
//! with the counts.

use std::collections::HashMap;

use super::counts::Counts;
use super::entry::{COPIED, Cluster, table_offset};
use super::header::Header;
use super::layout::Layout;
use super::snapshots::Snapshots;
use super::tables::read_words;
use super::{Qcow2, Writer};
use crate::error::Flaw;
use crate::file::ImageFile;

/// Most clusters of a file that is walked: 128 MiB of memory, for 4 TiB in clusters of 64 KiB.
const MAX_CLUSTERS: u64 = 64 << 20;
/// Most bytes of tables that a walk reads: eight times the tables of 16 TiB in clusters of 64 KiB.
const MAX_TABLES: u64 = 16 << 30;
/// Errors that are described; further ones are only counted.
const MAX_ERRORS: usize = 20;

/// The bits for the number of uses; the other bits are the kind of use.
const USES: u16 = 0x1FFF;
const DATA: u16 = 1 << 13;
const TABLE: u16 = 1 << 14;
const FIXED: u16 = 1 << 15;

/// The result of a check of an image.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// The first flaws.
    pub(crate) errors: Vec<String>,
    /// The number of further flaws.
    pub(crate) more_errors: u64,
    /// Bytes of clusters that are counted and not used.
    pub(crate) leaked: u64,
    /// The image was not closed after the last change.
    pub(crate) dirty: bool,
    /// The image names clusters in a form that this code does not know, so no cluster can be known
    /// to be unused.
    pub(crate) foreign: bool,
}

/// The kind of use of a cluster of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// Header, first-level tables, counts, the table of snapshots. Each has one use.
    Fixed(&'static str),
    /// A second-level table.
    Table,
    /// The disk's bytes.
    Data,
}

/// The uses of all clusters of a file.
#[derive(Debug)]
pub(super) struct Walk {
    layout: Layout,
    uses: Vec<u16>,
    pub(super) findings: Findings,
    /// Bytes of tables that may still be read.
    left: u64,
}

impl Findings {
    fn add(&mut self, error: impl FnOnce() -> String) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(error());
        } else {
            self.more_errors += 1;
        }
    }
}

impl Walk {
    /// Walks over all structures that the header names.
    pub(super) fn over(
        file: &ImageFile,
        header: &Header,
        counts: &Counts,
        l1: &[u64],
    ) -> Result<Self, Flaw> {
        let clusters = header.layout.clusters(file.len()?).max(counts.end());
        if clusters > MAX_CLUSTERS {
            return Err(Flaw::unsupported(
                format!(
                    "its file has {clusters} clusters, and at most {MAX_CLUSTERS} can be checked"
                ),
                "check it with: qemu-img check",
            ));
        }
        let findings = Findings {
            dirty: header.is_dirty(),
            foreign: header.has_foreign_clusters,
            ..Findings::default()
        };
        let mut walk = Self {
            layout: header.layout,
            uses: vec![0; clusters as usize],
            findings,
            left: MAX_TABLES,
        };
        walk.add_structures(file, header, counts)?;
        let mut active = HashMap::new();
        walk.add_l1(file, l1, Some(&mut active))?;
        for (offset, entries) in Snapshots::read(file, header)?.tables {
            walk.add_l1(file, &read_words(file, offset, entries)?, None)?;
        }
        walk.check_copied(file, l1, &active)?;
        Ok(walk)
    }

    fn add_structures(
        &mut self,
        file: &ImageFile,
        header: &Header,
        counts: &Counts,
    ) -> Result<(), Flaw> {
        self.add(0, 1, Use::Fixed("the header"));
        self.add(header.l1_offset, header.l1_entries * 8, Use::Fixed("the first-level table"));
        let bytes = header.counts_clusters << self.layout.bits;
        self.add(header.counts_offset, bytes, Use::Fixed("the reference count table"));
        for &block in counts.blocks() {
            if block != 0 {
                self.add_cluster(block, Use::Fixed("a block of reference counts"));
            }
        }
        let snapshots = Snapshots::read(file, header)?;
        self.add(header.snapshots_offset, snapshots.length, Use::Fixed("the table of snapshots"));
        for &(offset, entries) in &snapshots.tables {
            self.add(offset, entries * 8, Use::Fixed("the table of a snapshot"));
        }
        Ok(())
    }

    /// Adds one use of each cluster of a range of the file.
    fn add(&mut self, offset: u64, bytes: u64, what: Use) {
        for at in 0..self.layout.clusters(bytes) {
            self.add_cluster(offset + (at << self.layout.bits), what);
        }
    }

    fn add_cluster(&mut self, offset: u64, what: Use) {
        let name = match what {
            Use::Fixed(name) => name,
            Use::Table => "a second-level table",
            Use::Data => "a cluster",
        };
        if !offset.is_multiple_of(self.layout.cluster()) {
            return self
                .findings
                .add(|| format!("{name} at {offset:#x} does not begin where a cluster does"));
        }
        let index = usize::try_from(offset >> self.layout.bits).ok();
        let Some(uses) = index.and_then(|index| self.uses.get_mut(index)) else {
            return self.findings.add(|| format!("{name} at {offset:#x} does not lie in the file"));
        };
        let kind = match what {
            Use::Fixed(_) => FIXED,
            Use::Table => TABLE,
            Use::Data => DATA,
        };
        let others = *uses & !USES;
        if others & FIXED != 0 || others != 0 && others != kind {
            self.findings.add(|| format!("{name} at {offset:#x} lies where something else is"));
        }
        *uses = (*uses | kind) & !USES | ((*uses & USES) + 1).min(USES);
    }

    /// Adds the uses of a first-level table. `active`: records the second-level tables that the
    /// disk's own table uses.
    fn add_l1(
        &mut self,
        file: &ImageFile,
        l1: &[u64],
        mut active: Option<&mut HashMap<u64, usize>>,
    ) -> Result<(), Flaw> {
        for (index, &entry) in l1.iter().enumerate() {
            let offset = table_offset(entry);
            if offset == 0 {
                continue;
            }
            let before = self.findings.errors.len() as u64 + self.findings.more_errors;
            self.add_cluster(offset, Use::Table);
            if before != self.findings.errors.len() as u64 + self.findings.more_errors {
                continue;
            }
            if let Some(active) = &mut active
                && let Some(other) = active.insert(offset, index)
            {
                self.findings.add(|| {
                    format!(
                        "parts {other} and {index} of the disk share the second-level table at \
                        {offset:#x}"
                    )
                });
                continue;
            }
            for (slot, word) in
                self.table(file, offset)?.into_iter().step_by(self.layout.words()).enumerate()
            {
                self.add_entry(word, index as u64, slot as u64);
            }
        }
        Ok(())
    }

    fn table(&mut self, file: &ImageFile, offset: u64) -> Result<Vec<u64>, Flaw> {
        self.left = self.left.checked_sub(self.layout.cluster()).ok_or_else(|| {
            let reason = format!("it has more than {} GiB of tables", MAX_TABLES >> 30);
            Flaw::unsupported(reason, "check it with: qemu-img check")
        })?;
        Ok(read_words(file, offset, self.layout.cluster() / 8)?)
    }

    fn add_entry(&mut self, word: u64, index: u64, slot: u64) {
        let position = index * self.layout.reach() + slot * self.layout.cluster();
        match self.layout.decode(word, position) {
            Cluster::Unallocated | Cluster::Zero { preallocated: 0 } => {}
            Cluster::Data { .. } | Cluster::Zero { .. } if self.layout.external => {}
            Cluster::Data { offset, .. } | Cluster::Zero { preallocated: offset } => {
                self.add_cluster(offset, Use::Data);
            }
            Cluster::Compressed { offset, length } => {
                let (first, last) =
                    (offset >> self.layout.bits, (offset + length - 1) >> self.layout.bits);
                // The file may end before the last sectors.
                let end = (self.uses.len() as u64).max(first + 1);
                (first..=last.min(end - 1))
                    .for_each(|at| self.add_cluster(at << self.layout.bits, Use::Data));
            }
            Cluster::Invalid => {
                self.findings.add(|| {
                    format!("the entry of the disk's cluster at {position:#x} is {word:#x}")
                });
            }
        }
    }

    /// Checks that clusters marked as used once are used once. Only then does a write in place not
    /// change another cluster.
    fn check_copied(
        &mut self,
        file: &ImageFile,
        l1: &[u64],
        active: &HashMap<u64, usize>,
    ) -> Result<(), Flaw> {
        let uses = |walk: &Self, offset: u64| {
            let index = usize::try_from(offset >> walk.layout.bits).ok();
            index.and_then(|index| walk.uses.get(index)).map_or(0, |uses| uses & USES)
        };
        for (&offset, &index) in active {
            if l1[index] & COPIED != 0 && uses(self, offset) > 1 {
                self.findings.add(|| {
                    format!(
                        "the second-level table at {offset:#x} is marked as used once, and is \
                        shared"
                    )
                });
            }
            if self.layout.external {
                continue;
            }
            for (slot, word) in
                self.table(file, offset)?.into_iter().step_by(self.layout.words()).enumerate()
            {
                let position =
                    index as u64 * self.layout.reach() + slot as u64 * self.layout.cluster();
                if let Cluster::Data { offset, copied: true } = self.layout.decode(word, position)
                    && uses(self, offset) > 1
                {
                    self.findings.add(|| {
                        format!(
                            "the disk's cluster at {position:#x} ({offset:#x} in the file) is \
                            marked as used once, and is shared"
                        )
                    });
                }
            }
        }
        Ok(())
    }

    /// Returns the uses of a cluster of the file.
    pub(super) fn uses(&self, cluster: u64) -> u64 {
        let index = usize::try_from(cluster).ok();
        index.and_then(|index| self.uses.get(index)).map_or(0, |uses| u64::from(uses & USES))
    }

    /// Returns whether a cluster has more uses than the counter can hold.
    pub(super) fn is_saturated(&self, cluster: u64) -> bool {
        self.uses(cluster) == u64::from(USES)
    }

    /// Returns the number of clusters in the walk.
    pub(super) fn clusters(&self) -> u64 {
        self.uses.len() as u64
    }

    /// Returns the first cluster behind all used clusters.
    pub(super) fn end(&self) -> u64 {
        self.uses.iter().rposition(|&uses| uses != 0).map_or(0, |last| last as u64 + 1)
    }

    /// Compares the uses with the counts.
    fn compare(&mut self, file: &ImageFile, counts: &Counts) -> Result<(), Flaw> {
        let (per, clusters) = (counts.per_block(), self.uses.len() as u64);
        for index in 0..clusters.div_ceil(per) {
            let found = counts.read_counts(file, index)?;
            for (cluster, count) in (index * per..clusters).zip(found) {
                let uses = self.uses(cluster);
                if count < uses {
                    let offset = cluster << self.layout.bits;
                    self.findings.add(|| {
                        format!(
                            "the cluster at {offset:#x} is used {uses} times and counted \
                            {count} times"
                        )
                    });
                } else if count > uses && !self.is_saturated(cluster) {
                    self.findings.leaked += self.layout.cluster();
                }
            }
        }
        if self.findings.foreign {
            self.findings.leaked = 0;
        }
        Ok(())
    }
}

impl Qcow2 {
    /// Checks the whole image file, which must not be written meanwhile.
    pub(crate) fn findings(&self) -> Result<Findings, Flaw> {
        let writer = self.lock();
        let mut walk = self.walk(&writer)?;
        let length = self.file.len()?;
        for (index, &offset) in writer.counts.blocks().iter().enumerate() {
            if offset != 0
                && offset.checked_add(self.layout.cluster()).is_none_or(|end| end > length)
            {
                walk.findings
                    .add(|| format!("block {index} of reference counts does not lie in the file"));
                return Ok(walk.findings);
            }
        }
        walk.compare(&self.file, &writer.counts)?;
        Ok(walk.findings)
    }

    /// Walks over the whole image.
    pub(super) fn walk(&self, writer: &Writer) -> Result<Walk, Flaw> {
        Walk::over(&self.file, &writer.header, &writer.counts, &self.tables.l1())
    }
}
