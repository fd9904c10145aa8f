//! Counters of the worker that serves a channel, in one form for every device.

use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(feature = "serde")]
use serde::{Deserialize, Serialize};
use vmbus_protocol::num::u64_of;

/// The work of one channel's worker since the channel was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
#[non_exhaustive]
pub struct WorkerStats {
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

/// The counters behind [`WorkerStats`]. Only the channel's worker writes them: `vmbus-device`
/// counts in its workers, and a device without that runtime may count in its own. All are 0 if no
/// worker counts.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    /// See [`WorkerStats::taken`], and so on.
    pub taken: Counter,
    /// Packets written to the guest.
    pub sent: Counter,
    /// Batches in which packets were taken.
    pub batches: Counter,
    /// How often the worker slept.
    pub sleeps: Counter,
    /// Poll windows in which more work came.
    pub polled: Counter,
    /// Interrupts that were delayed.
    pub moderated: Counter,
}

impl WorkerCounters {
    /// Returns the counters at this moment.
    #[must_use]
    pub fn snapshot(&self) -> WorkerStats {
        WorkerStats {
            taken: self.taken.get(),
            sent: self.sent.get(),
            batches: self.batches.get(),
            sleeps: self.sleeps.get(),
            polled: self.polled.get(),
            moderated: self.moderated.get(),
        }
    }
}

/// A counter with one writer, so an update is a plain store.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`. Only the channel's worker calls this: counts of two writers get lost.
    #[inline]
    pub fn add(&self, count: usize) {
        let before = self.0.load(Ordering::Relaxed);
        self.0.store(before.wrapping_add(u64_of(count)), Ordering::Relaxed);
    }

    /// Returns the count.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
