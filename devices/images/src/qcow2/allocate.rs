//! Allocation of clusters of the file for clusters of the disk.

use synthvm_block::IoError;

use super::entry::{COPIED, Cluster, table_offset};
use super::locate::Mode;
use super::{Qcow2, Writer};
use crate::mapped::{Extents, Location};
use crate::qcow2::locate::Stop;
use crate::qcow2::tables::read_words;

/// Bytes that are copied by one call.
const COPY: u64 = 1 << 20;

/// The new location of a cluster, before its entry names it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prepared {
    /// Cluster of the data file.
    pub(super) cluster: u64,
    /// The number of copies that must be durable before the entry may name it.
    copy: u64,
}

/// The content of a new location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// The content that the disk shows.
    Kept,
    /// Zeroes.
    Zero,
}

/// The result of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Done,
    /// Copies must become durable before the next attempt.
    Barrier,
}

/// A cluster of the disk that needs a location.
struct Job {
    position: u64,
    old: Cluster,
}

impl Qcow2 {
    /// Gives each cluster of the range a location that may be written. On [`Progress::Done`] all
    /// have one.
    pub(super) fn materialize(
        &self,
        writer: &mut Writer,
        offset: u64,
        length: u64,
        content: Content,
    ) -> Result<Progress, IoError> {
        let jobs = self.jobs(offset, length)?;
        let cluster = self.layout.cluster();
        let mut is_durable = true;
        for (done, job) in jobs.iter().enumerate() {
            self.table_for_writing(writer, job.position / self.layout.reach())?;
            let prepared = match writer.prepared.get(&job.position) {
                Some(&prepared) => prepared,
                None => self.prepare(writer, job, content, (jobs.len() - done) as u64)?,
            };
            is_durable &= prepared.copy <= writer.durable_copies;
        }
        if !is_durable {
            return Ok(Progress::Barrier);
        }
        // One call writes neighbours of one table.
        let is_neighbour = |a: &Job, b: &Job| {
            a.position + cluster == b.position && !b.position.is_multiple_of(self.layout.reach())
        };
        for run in jobs.chunk_by(is_neighbour) {
            let words = run.iter().filter_map(|job| writer.prepared.remove(&job.position));
            let words: Vec<u64> =
                words.map(|new| new.cluster << self.layout.bits | COPIED).collect();
            self.set_entries(run[0].position, &words)?;
            run.iter().for_each(|job| self.free(writer, job.old));
        }
        Ok(Progress::Done)
    }

    /// Returns the clusters of the range that have no location of their own.
    fn jobs(&self, offset: u64, length: u64) -> Result<Vec<Job>, IoError> {
        let cluster = self.layout.cluster();
        let mut jobs = Vec::new();
        for position in (offset / cluster * cluster..offset + length).step_by(cluster as usize) {
            match self.cluster_at(position)? {
                Cluster::Data { copied: true, .. } => {}
                Cluster::Invalid => return Err(IoError::Os(libc::EIO)),
                old => jobs.push(Job { position, old }),
            }
        }
        Ok(jobs)
    }

    /// Changes the entries of one table, from that of the cluster at `position` on.
    pub(super) fn set_entries(&self, position: u64, words: &[u64]) -> Result<(), IoError> {
        let slot = position / self.layout.cluster() % self.layout.entries();
        let index = position / self.layout.reach();
        Ok(self.tables.update(&self.file, index, slot, words, || self.changes.count())?)
    }

    /// Notes that an entry no longer uses the cluster that it named.
    pub(super) fn free(&self, writer: &mut Writer, old: Cluster) {
        let bits = self.layout.bits;
        if self.layout.external {
            return;
        }
        match old {
            Cluster::Unallocated | Cluster::Zero { preallocated: 0 } | Cluster::Invalid => {}
            Cluster::Zero { preallocated: offset } | Cluster::Data { offset, .. } => {
                writer.freed.push(offset >> bits);
            }
            Cluster::Compressed { offset, length } => {
                (offset >> bits..=(offset + length - 1) >> bits)
                    .for_each(|cluster| writer.freed.push(cluster));
            }
        }
    }

    /// Finds a location for a cluster and fills it. `more`: clusters that are needed now, this one
    /// included.
    fn prepare(
        &self,
        writer: &mut Writer,
        job: &Job,
        content: Content,
        more: u64,
    ) -> Result<Prepared, IoError> {
        let cluster = match self.layout.external {
            true => job.position >> self.layout.bits,
            false => self.take(writer, more)?,
        };
        let filled = self.fill(writer, job, content, cluster << self.layout.bits);
        let is_copy = filled.inspect_err(|_| {
            if !self.layout.external {
                writer.freed.push(cluster);
            }
        })?;
        writer.copies += u64::from(is_copy);
        let prepared = Prepared { cluster, copy: if is_copy { writer.copies } else { 0 } };
        writer.prepared.insert(job.position, prepared);
        Ok(prepared)
    }

    /// Takes a cluster of the reserve. `more` clusters are needed now.
    pub(super) fn take(&self, writer: &mut Writer, more: u64) -> Result<u64, IoError> {
        if let Some(cluster) = writer.reserve.take() {
            return Ok(cluster);
        }
        self.fill_reserve(writer, more)?;
        writer.reserve.take().ok_or(IoError::NoSpace)
    }

    /// Adds to the reserve.
    pub(super) fn fill_reserve(&self, writer: &mut Writer, least: u64) -> Result<(), IoError> {
        if writer.failed {
            return Err(IoError::FlushLost);
        }
        let Writer { reserve, header, counts, freed, failed, .. } = writer;
        let appended = reserve.fill(&self.file, header, counts, least).inspect_err(|error| {
            // Otherwise it is unknown whether the tables in the file are unchanged.
            *failed |= !matches!(error, IoError::NoSpace);
        })?;
        self.tables.protect(appended.structures.0, appended.structures.1);
        self.tables.set_end(counts.end());
        (appended.replaced.0..appended.replaced.1).for_each(|cluster| freed.push(cluster));
        Ok(())
    }

    /// Fills the location at `target` with its content. Returns whether that must become durable
    /// before an entry names it.
    fn fill(
        &self,
        writer: &mut Writer,
        job: &Job,
        content: Content,
        target: u64,
    ) -> Result<bool, IoError> {
        let mut is_copy = false;
        if let Some(data) = &self.data {
            // Clusters of the reserve read as zero; the clusters at `target` can have any content.
            let length = data.len()?.saturating_sub(target).min(self.layout.cluster());
            let extent = data.raw().extent(target)?;
            if extent.mapped || extent.length < length {
                data.zero(target, length)?;
                is_copy = true;
            }
        }
        if content == Content::Zero || matches!(job.old, Cluster::Zero { .. }) {
            return Ok(is_copy);
        }
        let length = self.layout.cluster().min(self.capacity().saturating_sub(job.position));
        let (mut extents, mut done) = (Extents::default(), 0);
        while done < length {
            done += match self.locate_from(
                job.position + done,
                length - done,
                Mode::Files,
                &mut extents,
            ) {
                Ok(bytes) => bytes,
                Err(Stop::Error(error)) => return Err(error),
                Err(Stop::Wait) => 0,
            };
        }
        let mut target = target;
        for extent in extents.as_slice() {
            is_copy |= self.copy(writer, &extent.location, extent.length, target)?;
            target += extent.length;
        }
        Ok(is_copy)
    }

    /// Copies `length` bytes to `target` in the data file, unless they are zero. Returns whether
    /// bytes were written.
    fn copy(
        &self,
        writer: &mut Writer,
        location: &Location,
        length: u64,
        target: u64,
    ) -> Result<bool, IoError> {
        let (data, _) = self.data_file();
        let mut is_written = false;
        let mut write = |bytes: &[u8], at: u64| {
            if bytes.iter().any(|&byte| byte != 0) {
                is_written = true;
                data.write(bytes, target + at)?;
            }
            Ok::<_, IoError>(())
        };
        match location {
            Location::Zero => {}
            Location::Memory { bytes, offset } => write(&bytes[*offset..][..length as usize], 0)?,
            Location::File { file, offset } => {
                for at in (0..length).step_by(COPY as usize) {
                    let part = (length - at).min(COPY) as usize;
                    write(&writer.reader.read(&self.files, *file, offset + at, part)?, at)?;
                }
            }
        }
        Ok(is_written)
    }

    /// Makes sure that entry `index` of the first level has a table that may be written in place.
    pub(super) fn table_for_writing(&self, writer: &mut Writer, index: u64) -> Result<(), IoError> {
        let entry = self.tables.l1_entry(index);
        let (old, words) = (table_offset(entry), self.layout.cluster() / 8);
        if old != 0 && entry & COPIED != 0 {
            return Ok(());
        }
        let cluster = self.take(writer, 1)?;
        let offset = cluster << self.layout.bits;
        let mut set = || -> Result<(), IoError> {
            let mut table = vec![0; words as usize];
            if old != 0 {
                // An internal snapshot shares the table, and with it all clusters that it names.
                table = read_words(&self.file, old, words)?;
                table.iter_mut().for_each(|word| *word &= !COPIED);
                let bytes: Vec<u8> = table.iter().flat_map(|word| word.to_be_bytes()).collect();
                self.file.write(&bytes, offset)?;
                self.file.sync().inspect_err(|_| writer.failed = true)?;
            }
            Ok(self.tables.set_table(&self.file, index, offset, table, || self.changes.count())?)
        };
        if let Err(error) = set() {
            writer.freed.push(cluster);
            return Err(error);
        }
        if old != 0 {
            writer.freed.push(old >> self.layout.bits);
        }
        Ok(())
    }

    /// Makes all copies durable.
    pub(super) fn make_copies_durable(&self) -> Result<(), IoError> {
        let copies = {
            let writer = self.lock();
            if writer.failed {
                return Err(IoError::FlushLost);
            }
            writer.copies
        };
        // The sync runs without the lock, so that only writers that need the copies wait.
        let result = self.data_file().0.sync();
        let mut writer = self.lock();
        match result {
            Ok(()) => writer.durable_copies = writer.durable_copies.max(copies),
            Err(_) => writer.failed = true,
        }
        Ok(result?)
    }
}
