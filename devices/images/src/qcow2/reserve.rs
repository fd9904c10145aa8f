//! Clusters to be used next, and clusters that are no longer used.

use std::io;

use synthvm_block::IoError;

use super::counts::{Appended, Counts};
use super::header::Header;
use crate::file::ImageFile;

/// Most bytes that one step takes: large, so that few clusters wait for the storage.
const MAX_BATCH: u64 = 64 << 20;
/// Least bytes that one step takes.
const MIN_BATCH: u64 = 1 << 20;

/// Clusters with durable counts of one, which read as zero, durably. No entry names them yet.
#[derive(Debug, Default)]
pub(super) struct Reserve {
    /// Begin and end of each run, in the order in which they are used.
    runs: Vec<(u64, u64)>,
}

impl Reserve {
    /// Takes a cluster of the reserve.
    pub(super) fn take(&mut self) -> Option<u64> {
        let run = self.runs.first_mut()?;
        let cluster = run.0;
        run.0 += 1;
        if run.0 == run.1 {
            self.runs.remove(0);
        }
        Some(cluster)
    }

    /// Returns the clusters that are left.
    pub(super) fn left(&self) -> u64 {
        self.runs.iter().map(|(begin, end)| end - begin).sum()
    }

    /// Adds clusters at the file's end: a quarter of its length, so that small files stay small. If
    /// the storage has no space for that many, `least`.
    pub(super) fn fill(
        &mut self,
        file: &ImageFile,
        header: &mut Header,
        counts: &mut Counts,
        least: u64,
    ) -> Result<Appended, IoError> {
        let batch = batch(counts.end() << header.layout.bits) >> header.layout.bits;
        let batch = batch.max(least);
        let (appended, count) = match counts.append(file, header, batch, &[]) {
            Err(IoError::NoSpace) if batch > least => {
                (counts.append(file, header, least, &[])?, least)
            }
            result => (result?, batch),
        };
        match self.runs.last_mut() {
            Some(last) if last.1 == appended.first => last.1 += count,
            _ => self.runs.push((appended.first, appended.first + count)),
        }
        Ok(appended)
    }

    /// Sets the counts of the remaining clusters to zero. Not durable. Returns the end of the
    /// file's used part.
    pub(super) fn give_back(&mut self, file: &ImageFile, counts: &Counts) -> io::Result<u64> {
        let mut end = counts.end();
        for (begin, to) in self.runs.drain(..).rev() {
            counts.change(file, begin, to, |_, _| 0)?;
            if to == end {
                end = begin;
            }
        }
        Ok(end)
    }
}

/// Returns the bytes to take for a file of `length` bytes.
fn batch(length: u64) -> u64 {
    (length / 4).clamp(MIN_BATCH, MAX_BATCH)
}

/// Uses that have ended. Counts decrease when the file is closed: until then a crash may restore
/// the uses, and a read that began earlier may still be in progress.
#[derive(Debug, Default)]
pub(super) struct Freed {
    clusters: Vec<u64>,
    /// Uses that did not fit into the list.
    pub(super) lost: u64,
}

/// Most uses that are recorded, 8 MiB. Further clusters stay counted until the image is repaired.
const MAX_FREED: usize = 1 << 20;

impl Freed {
    /// Records that one use of a cluster has ended.
    pub(super) fn push(&mut self, cluster: u64) {
        if self.clusters.len() < MAX_FREED {
            self.clusters.push(cluster);
        } else {
            self.lost += 1;
        }
    }

    /// Decreases the counts. Not durable.
    pub(super) fn apply(&mut self, file: &ImageFile, counts: &Counts) -> io::Result<()> {
        let mut clusters = std::mem::take(&mut self.clusters);
        clusters.sort_unstable();
        let per = counts.per_block();
        for group in clusters.chunk_by(|a, b| a / per == b / per) {
            let (first, last) = (group[0], group[group.len() - 1]);
            let mut rest = group;
            counts.change(file, first, last + 1, |cluster, count| {
                let uses = rest.partition_point(|&freed| freed <= cluster);
                rest = &rest[uses..];
                count.saturating_sub(uses as u64)
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_clusters_are_taken_in_order_each_once() {
        let mut reserve = Reserve { runs: vec![(5, 7), (20, 21)] };
        assert_eq!(reserve.left(), 3);
        let taken: Vec<_> = std::iter::from_fn(|| reserve.take()).collect();
        assert_eq!((taken, reserve.left()), (vec![5, 6, 20], 0));
    }

    #[test]
    fn test_batch_grows_with_the_file_within_bounds() {
        assert_eq!(
            [0, 1 << 20, 64 << 20, 1 << 40].map(batch),
            [1 << 20, 1 << 20, 16 << 20, 64 << 20]
        );
    }

    #[test]
    fn test_list_of_freed_clusters_is_bounded() {
        let mut freed = Freed::default();
        (0..MAX_FREED as u64 + 3).for_each(|cluster| freed.push(cluster));
        assert_eq!((freed.clusters.len(), freed.lost), (MAX_FREED, 3));
    }
}
