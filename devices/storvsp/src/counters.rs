//! Counters of a disk, for `inspect`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use serde::{Deserialize, Serialize};

use synthvm_block::Operation;

/// The live counters of one disk, shared by the workers of all channels. Each number is exact; a
/// snapshot is not atomic.
#[derive(Debug, Default)]
pub(crate) struct DiskCounters {
    reads: AtomicU64,
    writes: AtomicU64,
    flushes: AtomicU64,
    discards: AtomicU64,
    zeroes: AtomicU64,
    discarded_bytes: AtomicU64,
    zeroed_bytes: AtomicU64,
    commands: AtomicU64,
    read_bytes: AtomicU64,
    written_bytes: AtomicU64,
    copied_bytes: AtomicU64,
    metadata_bytes: AtomicU64,
    refused: AtomicU64,
    errors: AtomicU64,
    /// The requests in flight of each queue to the backend.
    queues: Mutex<Vec<Weak<AtomicU64>>>,
}

/// Reads and writes that ended in one poll. They are added to the disk's counters together, as an
/// atomic addition costs as much as the rest of a completion.
#[derive(Debug, Default)]
pub(crate) struct Transfers {
    reads: u64,
    read_bytes: u64,
    writes: u64,
    written_bytes: u64,
    copied_bytes: u64,
}

/// A snapshot of a disk's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskStats {
    /// Commands of all kinds from the guest.
    pub requests: u64,
    /// Bytes read and written.
    pub bytes: u64,
    /// Bytes copied through an intermediate buffer between guest memory and backend. 0 for raw
    /// images.
    pub copied_bytes: u64,
    /// Requests that the backend failed.
    pub errors: u64,
    /// Reads done.
    pub reads: u64,
    /// Writes done.
    pub writes: u64,
    /// Flushes done; a forced write (FUA) counts as a write.
    pub flushes: u64,
    /// UNMAP commands done, each with any number of ranges.
    pub discards: u64,
    /// Bytes in the ranges of these UNMAP commands.
    pub discarded_bytes: u64,
    /// Ranges set to zero by WRITE SAME.
    pub zeroes: u64,
    /// Bytes in these ranges.
    pub zeroed_bytes: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Bytes of replies such as INQUIRY data.
    pub metadata_bytes: u64,
    /// Commands refused as invalid, unknown or out of range.
    pub refused: u64,
    /// Requests in flight at the backend. A stalled backend keeps them in flight. Requests of a
    /// closed channel count until they end.
    pub in_flight: u64,
}

impl DiskCounters {
    pub(crate) fn snapshot(&self) -> DiskStats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (reads, writes, flushes) = (of(&self.reads), of(&self.writes), of(&self.flushes));
        let (read_bytes, written_bytes, errors) =
            (of(&self.read_bytes), of(&self.written_bytes), of(&self.errors));
        let refused = of(&self.refused);
        let (discards, zeroes) = (of(&self.discards), of(&self.zeroes));
        DiskStats {
            requests: reads
                + writes
                + flushes
                + discards
                + zeroes
                + errors
                + refused
                + of(&self.commands),
            bytes: read_bytes + written_bytes,
            copied_bytes: of(&self.copied_bytes),
            errors,
            reads,
            writes,
            flushes,
            discards,
            discarded_bytes: of(&self.discarded_bytes),
            zeroes,
            zeroed_bytes: of(&self.zeroed_bytes),
            read_bytes,
            written_bytes,
            metadata_bytes: of(&self.metadata_bytes),
            refused,
            in_flight: self.queues().iter().filter_map(Weak::upgrade).map(|queue| of(&queue)).sum(),
        }
    }

    /// Returns the in-flight counter of a new queue. Only the queue's owner writes it, so that
    /// updates are plain stores.
    pub(crate) fn new_queue(&self) -> Arc<AtomicU64> {
        let queue = Arc::default();
        let mut queues = self.queues();
        queues.retain(|queue| queue.strong_count() != 0);
        queues.push(Arc::downgrade(&queue));
        queue
    }

    fn queues(&self) -> MutexGuard<'_, Vec<Weak<AtomicU64>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a completed operation on `bytes` bytes.
    pub(crate) fn done(&self, operation: Operation, bytes: u64, copied: u64) {
        let mut transfers = Transfers::default();
        self.done_with_others(operation, bytes, copied, &mut transfers);
        self.add(&transfers);
    }

    /// Counts one of several operations that end together. Reads and writes are collected in
    /// `transfers`, for [`DiskCounters::add`].
    #[inline]
    pub(crate) fn done_with_others(
        &self,
        operation: Operation,
        bytes: u64,
        copied: u64,
        transfers: &mut Transfers,
    ) {
        transfers.copied_bytes += copied;
        match operation {
            Operation::Read => {
                transfers.reads += 1;
                transfers.read_bytes += bytes;
            }
            Operation::Write { .. } => {
                transfers.writes += 1;
                transfers.written_bytes += bytes;
            }
            Operation::Flush => add(&self.flushes, 1),
            Operation::Discard => {
                add(&self.discards, 1);
                add(&self.discarded_bytes, bytes);
            }
            Operation::WriteZeroes { .. } => {
                add(&self.zeroes, 1);
                add(&self.zeroed_bytes, bytes);
            }
        }
    }

    /// Adds completed transfers.
    #[inline]
    pub(crate) fn add(&self, transfers: &Transfers) {
        if transfers.reads != 0 {
            add(&self.reads, transfers.reads);
            add(&self.read_bytes, transfers.read_bytes);
        }
        if transfers.writes != 0 {
            add(&self.writes, transfers.writes);
            add(&self.written_bytes, transfers.written_bytes);
        }
        if transfers.copied_bytes != 0 {
            add(&self.copied_bytes, transfers.copied_bytes);
        }
    }

    /// Counts an operation that the backend failed.
    pub(crate) fn failed(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a command that the SCSI layer answered with `bytes` bytes of data.
    pub(crate) fn answered(&self, bytes: usize) {
        self.commands.fetch_add(1, Ordering::Relaxed);
        self.metadata_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts a refused command.
    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
