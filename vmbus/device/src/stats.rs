//! Counters of a worker, in one form for every device.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// The work of one channel's worker so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerStats {
    /// Subchannel number; 0 for the primary.
    pub subchannel: u16,
    /// Packets taken from the guest.
    pub taken: u64,
    /// Packets written to the guest.
    pub sent: u64,
    /// Batches in which packets were taken.
    pub batches: u64,
    /// How often the worker slept.
    pub sleeps: u64,
    /// Poll windows in which more work came, so that a sleep was avoided.
    pub polled: u64,
    /// Interrupts that were delayed.
    pub moderated: u64,
}

/// Counters that only their worker writes, so an update is a plain store.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) subchannel: u16,
    pub(crate) taken: Counter,
    pub(crate) sent: Counter,
    pub(crate) batches: Counter,
    pub(crate) sleeps: Counter,
    pub(crate) polled: Counter,
    pub(crate) moderated: Counter,
}

impl Counters {
    /// Returns the counters at this moment.
    pub(crate) fn snapshot(&self) -> WorkerStats {
        WorkerStats {
            subchannel: self.subchannel,
            taken: self.taken.get(),
            sent: self.sent.get(),
            batches: self.batches.get(),
            sleeps: self.sleeps.get(),
            polled: self.polled.get(),
            moderated: self.moderated.get(),
        }
    }
}

/// A counter with one writer.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`. Only the owner calls this.
    #[inline]
    pub(crate) fn add(&self, count: usize) {
        let before = self.0.load(Ordering::Relaxed);
        self.0.store(before.wrapping_add(count as u64), Ordering::Relaxed);
    }

    /// Returns the count.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
