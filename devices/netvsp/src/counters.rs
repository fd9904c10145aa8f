//! Counters of a card's channels, which any thread can read.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A channel's part of the receive buffer, and the frames to the guest that it dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelCounters {
    /// Sub-allocations of the receive buffer into which the channel receives frames; 0 while it
    /// receives none.
    pub sub_allocations: u32,
    /// Those of them that hold frames which the guest has not completed.
    pub in_use: u32,
    /// Frames that the guest does not want: to another address, or longer than its MTU.
    pub unwanted: u64,
    /// Frames that the guest had no space for: it completes too few of a channel's frames.
    pub starved: u64,
}

/// The memory of [`ChannelCounters`]. The worker of the channel is the only writer.
#[derive(Debug, Default)]
pub(crate) struct SharedCounters {
    sub_allocations: AtomicU32,
    in_use: AtomicU32,
    unwanted: AtomicU64,
    starved: AtomicU64,
}

impl SharedCounters {
    /// Sets the use of the buffer, and adds the drops since the call before.
    #[inline]
    pub(crate) fn update(&self, round: ChannelCounters) {
        self.sub_allocations.store(round.sub_allocations, Ordering::Relaxed);
        self.in_use.store(round.in_use, Ordering::Relaxed);
        add(&self.unwanted, round.unwanted);
        add(&self.starved, round.starved);
    }

    pub(crate) fn read(&self) -> ChannelCounters {
        ChannelCounters {
            sub_allocations: self.sub_allocations.load(Ordering::Relaxed),
            in_use: self.in_use.load(Ordering::Relaxed),
            unwanted: self.unwanted.load(Ordering::Relaxed),
            starved: self.starved.load(Ordering::Relaxed),
        }
    }
}

/// Adds to a counter with one writer. Most rounds drop nothing.
fn add(counter: &AtomicU64, count: u64) {
    if count != 0 {
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }
}
