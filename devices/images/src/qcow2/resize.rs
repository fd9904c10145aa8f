//! Changes of the disk's size.

use std::sync::atomic::Ordering;

use synthvm_block::IoError;

use super::entry::{Cluster, table_offset};
use super::layout::MAX_L1;
use super::{Qcow2, Writer};
use crate::mapped::{Extents, Location, Step};

impl Qcow2 {
    /// See [`synthvm_block::Backend::resize`].
    pub(super) fn change_capacity(&self, capacity: u64) -> Result<(), IoError> {
        if self.read_only {
            return Err(IoError::ReadOnly);
        }
        if capacity == 0 || !capacity.is_multiple_of(512) {
            return Err(IoError::Unsupported);
        }
        if self.layout.l1_entries(capacity) * 8 > MAX_L1 {
            return Err(IoError::NoSpace);
        }
        let mut writer = self.lock();
        self.begin(&mut writer)?;
        let old = self.capacity();
        if capacity < old {
            self.shrink(&mut writer, old, capacity)
        } else {
            self.grow(&mut writer, old, capacity)
        }
    }

    fn grow(&self, writer: &mut Writer, old: u64, capacity: u64) -> Result<(), IoError> {
        self.grow_l1(writer, self.layout.l1_entries(capacity))?;
        // That range can hold old data of an earlier, larger disk, or data of the backing file.
        self.drop_clusters(writer, old, capacity)?;
        let shown = self.parent.as_ref().map_or(0, |parent| parent.geometry().capacity);
        let end = capacity.min(shown.max(old.next_multiple_of(self.layout.cluster())));
        self.zero_now(writer, old, end, capacity)?;
        if let Some(data) = &self.data
            && data.len()? < capacity
        {
            data.grow(capacity)?;
        }
        self.sync_all(writer)?;
        writer.header.write_capacity(&self.file, capacity).inspect_err(|_| writer.failed = true)?;
        self.capacity.store(capacity, Ordering::Release);
        Ok(())
    }

    fn shrink(&self, writer: &mut Writer, old: u64, capacity: u64) -> Result<(), IoError> {
        self.capacity.store(capacity, Ordering::Release);
        if let Err(error) = writer.header.write_capacity(&self.file, capacity) {
            writer.failed = true;
            self.capacity.store(old, Ordering::Release);
            return Err(error.into());
        }
        self.drop_clusters(writer, capacity, old)
    }

    /// Makes the first level at least `entries` long.
    fn grow_l1(&self, writer: &mut Writer, entries: u64) -> Result<(), IoError> {
        let (offset, old) = (writer.header.l1_offset, writer.header.l1_entries);
        if entries <= old {
            return Ok(());
        }
        let Writer { header, counts, freed, failed, .. } = writer;
        let clusters = self.layout.clusters(entries * 8);
        if clusters == self.layout.clusters(old * 8) {
            // The rest of the table's last cluster can have any content.
            self.file.write(&vec![0; (entries - old) as usize * 8], offset + old * 8)?;
            self.file.sync().inspect_err(|_| *failed = true)?;
            header.write_l1(&self.file, offset, entries).inspect_err(|_| *failed = true)?;
            self.tables.move_l1(offset, entries);
            return Ok(());
        }
        let appended = counts.append(&self.file, header, clusters, &[]).inspect_err(|error| {
            *failed |= !matches!(error, IoError::NoSpace);
        })?;
        let new = appended.first << self.layout.bits;
        let bytes: Vec<u8> =
            self.tables.l1().iter().flat_map(|entry| entry.to_be_bytes()).collect();
        self.file.write(&bytes, new)?;
        self.file.sync().inspect_err(|_| *failed = true)?;
        header.write_l1(&self.file, new, entries).inspect_err(|_| *failed = true)?;
        self.tables.move_l1(new, entries);
        self.tables.protect(appended.structures.0, appended.first + clusters);
        self.tables.set_end(counts.end());
        let first = offset >> self.layout.bits;
        let replaced = (first..first + self.layout.clusters(old * 8))
            .chain(appended.replaced.0..appended.replaced.1);
        replaced.for_each(|cluster| freed.push(cluster));
        Ok(())
    }

    /// Removes the clusters that lie wholly in `from` to `to` of the disk.
    fn drop_clusters(&self, writer: &mut Writer, from: u64, to: u64) -> Result<(), IoError> {
        let (size, reach) = (self.layout.cluster(), self.layout.reach());
        let mut at = from.next_multiple_of(size);
        while at < to {
            let until = to.next_multiple_of(size).min((at / reach + 1) * reach);
            if table_offset(self.tables.l1_entry(at / reach)) != 0 {
                let positions: Vec<u64> = (at..until).step_by(size as usize).collect();
                let clusters = positions.iter().map(|&position| self.cluster_at(position));
                let clusters = clusters.collect::<Result<Vec<_>, _>>()?;
                if clusters.iter().any(|&cluster| cluster != Cluster::Unallocated) {
                    self.table_for_writing(writer, at / reach)?;
                    self.set_entries(at, &vec![0; positions.len()])?;
                    clusters.into_iter().for_each(|cluster| self.free(writer, cluster));
                }
                for position in positions {
                    if let Some(prepared) = writer.prepared.remove(&position)
                        && !self.layout.external
                    {
                        writer.freed.push(prepared.cluster);
                    }
                }
            }
            at = until;
        }
        Ok(())
    }

    /// Makes `from` to `to` of the disk read as zero before it returns. The disk will have
    /// `capacity` bytes.
    fn zero_now(
        &self,
        writer: &mut Writer,
        from: u64,
        to: u64,
        capacity: u64,
    ) -> Result<(), IoError> {
        let mut at = from;
        while at < to {
            let mut extents = Extents::default();
            match self.clear_step(writer, at, to - at, capacity, &mut extents)? {
                Step::Done(bytes) => at += bytes,
                Step::Again => {}
                Step::Barrier => self.sync_all(writer)?,
            }
            for extent in extents.as_slice() {
                if let Location::File { offset, .. } = extent.location {
                    self.data_file().0.zero(offset, extent.length)?;
                }
            }
        }
        Ok(())
    }

    /// Makes data and structures durable.
    fn sync_all(&self, writer: &mut Writer) -> Result<(), IoError> {
        let sync = || {
            if let Some(data) = &self.data {
                data.sync()?;
            }
            self.file.sync()
        };
        sync().inspect_err(|_| writer.failed = true)?;
        writer.durable_copies = writer.copies;
        Ok(())
    }
}
