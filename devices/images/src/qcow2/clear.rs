//! Zeroing by entries, where entries can express zeroes.

use synthvm_block::IoError;

use super::allocate::{Content, Progress};
use super::entry::{Cluster, ZERO, table_offset};
use super::{Qcow2, Writer};
use crate::mapped::{Extents, Location, Step, StepResult};

/// Clusters that one step inspects.
const MAX_CLUSTERS: u64 = 4096;
/// Parts of the disk without a table that one step skips.
const MAX_TABLES: u64 = 4096;

/// Neighbouring clusters whose entries change in the same way.
#[derive(Debug, Default)]
struct Run {
    position: u64,
    clusters: u64,
}

impl Qcow2 {
    /// A step of [`crate::mapped::Map::clear`]. The disk has `capacity` bytes.
    pub(super) fn clear_step(
        &self,
        writer: &mut Writer,
        offset: u64,
        length: u64,
        capacity: u64,
        extents: &mut Extents,
    ) -> StepResult {
        let (size, end) = (self.layout.cluster(), offset + length);
        let mut run = Run::default();
        let (mut at, mut looks, mut skips) = (offset, 0, 0);
        while at < end && looks < MAX_CLUSTERS && skips < MAX_TABLES {
            let index = at / self.layout.reach();
            if self.parent.is_none() && table_offset(self.tables.l1_entry(index)) == 0 {
                skips += 1;
                at = end.min((index + 1) * self.layout.reach());
                continue;
            }
            looks += 1;
            let position = at / size * size;
            let until = end.min(position + size);
            let is_whole = at == position && (until == position + size || until == capacity);
            match self.cluster_at(position)? {
                Cluster::Invalid => return Err(IoError::Os(libc::EIO)),
                Cluster::Zero { .. } => {}
                // The cluster keeps its location, so that requests in progress for it cannot reach
                // another cluster.
                Cluster::Data { copied: true, offset } => {
                    self.push_zeroes(offset + at - position, until - at, extents);
                }
                Cluster::Unallocated if !self.parent_has_data(at, until - at) => {}
                _ if is_whole => {
                    if run.clusters == 0 || position != run.position + run.clusters * size {
                        self.clear_run(writer, &run)?;
                        run = Run { position, clusters: 0 };
                    }
                    run.clusters += 1;
                }
                _ => {
                    self.clear_run(writer, &std::mem::take(&mut run))?;
                    if self.materialize(writer, at, until - at, Content::Kept)? == Progress::Barrier
                    {
                        return Ok(if at == offset {
                            Step::Barrier
                        } else {
                            Step::Done(at - offset)
                        });
                    }
                    match self.cluster_at(position)? {
                        Cluster::Data { offset, .. } => {
                            self.push_zeroes(offset + at - position, until - at, extents);
                        }
                        _ => return Err(IoError::Os(libc::EIO)),
                    }
                }
            }
            at = until;
        }
        self.clear_run(writer, &run)?;
        Ok(Step::Done(at - offset))
    }

    fn push_zeroes(&self, offset: u64, length: u64, extents: &mut Extents) {
        extents.push(length, Location::File { file: self.data_file().1, offset });
    }

    /// Zeroes whole clusters that have no location of their own: by a flag, or in version 2 by a
    /// location that reads as zero.
    fn clear_run(&self, writer: &mut Writer, run: &Run) -> Result<(), IoError> {
        let size = self.layout.cluster();
        let (mut at, end) = (run.position, run.position + run.clusters * size);
        while at < end {
            let until = end.min((at / self.layout.reach() + 1) * self.layout.reach());
            if self.layout.version < 3 {
                // Nothing is copied, so no barrier is needed.
                self.materialize(writer, at, until - at, Content::Zero)?;
            } else {
                self.flag(writer, at, (until - at) / size)?;
            }
            at = until;
        }
        Ok(())
    }

    /// Sets the zero flags of clusters of one table.
    fn flag(&self, writer: &mut Writer, position: u64, clusters: u64) -> Result<(), IoError> {
        self.table_for_writing(writer, position / self.layout.reach())?;
        let positions = (0..clusters).map(|cluster| position + cluster * self.layout.cluster());
        let old = positions
            .clone()
            .map(|position| self.cluster_at(position))
            .collect::<Result<Vec<_>, _>>()?;
        self.set_entries(position, &vec![ZERO; clusters as usize])?;
        for (position, old) in positions.zip(old) {
            self.free(writer, old);
            if let Some(prepared) = writer.prepared.remove(&position)
                && !self.layout.external
            {
                // The location holds data that the disk no longer shows.
                writer.freed.push(prepared.cluster);
            }
        }
        Ok(())
    }
}
