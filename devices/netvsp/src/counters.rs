//! Counters of a card's channels, which any thread can read.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use synthvm_net::SendError;

use crate::protocol::MacAddress;
use crate::protocol::oid::{Count, Destination, Statistics, Traffic};

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

/// The memory of [`ChannelCounters`] and [`Statistics`]. The worker of the channel is the only
/// writer.
#[derive(Debug, Default)]
pub(crate) struct SharedCounters {
    sub_allocations: AtomicU32,
    in_use: AtomicU32,
    unwanted: AtomicU64,
    starved: AtomicU64,
    pub(crate) statistics: SharedStatistics,
}

impl SharedCounters {
    /// Sets the use of the buffer, and adds the drops since the call before.
    #[inline]
    pub(crate) fn update(&self, round: ChannelCounters) {
        self.sub_allocations.store(round.sub_allocations, Ordering::Relaxed);
        self.in_use.store(round.in_use, Ordering::Relaxed);
        add(&self.unwanted, round.unwanted);
        add(&self.starved, round.starved);
        add(&self.statistics.receive_no_buffer, round.starved);
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

/// The memory of the [`Statistics`] of one channel, with which its worker counts frame by frame.
#[derive(Debug, Default)]
pub(crate) struct SharedStatistics {
    sent: SharedTraffic,
    received: SharedTraffic,
    send_errors: AtomicU64,
    send_discards: AtomicU64,
    receive_errors: AtomicU64,
    receive_no_buffer: AtomicU64,
}

/// The memory of a [`Traffic`].
#[derive(Debug, Default)]
struct SharedTraffic {
    directed: SharedCount,
    multicast: SharedCount,
    broadcast: SharedCount,
}

/// The memory of a [`Count`].
#[derive(Debug, Default)]
struct SharedCount {
    frames: AtomicU64,
    bytes: AtomicU64,
}

impl SharedStatistics {
    /// Counts the result of a frame of the guest to `destination`. A large segment is one frame.
    #[inline]
    pub(crate) fn count_sent(
        &self,
        destination: MacAddress,
        bytes: u32,
        result: Result<(), SendError>,
    ) {
        match result {
            Ok(()) => self.sent.count(destination, bytes),
            // It is sent again.
            Err(SendError::Full) => {}
            Err(SendError::LinkDown) => add(&self.send_discards, 1),
            Err(
                SendError::Os(_)
                | SendError::Malformed
                | SendError::Length(_)
                | SendError::Unsupported,
            ) => self.count_malformed(),
        }
    }

    /// Counts a frame of the guest that is malformed, or a message without a frame.
    pub(crate) fn count_malformed(&self) {
        add(&self.send_errors, 1);
    }

    /// Counts a frame that the guest gets. A coalesced one is one frame.
    #[inline]
    pub(crate) fn count_received(&self, destination: MacAddress, bytes: u32) {
        self.received.count(destination, bytes);
    }

    /// Counts a frame that was too long for the guest.
    pub(crate) fn count_too_long(&self) {
        add(&self.receive_errors, 1);
    }

    pub(crate) fn read(&self) -> Statistics {
        Statistics {
            sent: self.sent.read(),
            received: self.received.read(),
            send_errors: self.send_errors.load(Ordering::Relaxed),
            send_discards: self.send_discards.load(Ordering::Relaxed),
            receive_errors: self.receive_errors.load(Ordering::Relaxed),
            receive_no_buffer: self.receive_no_buffer.load(Ordering::Relaxed),
        }
    }
}

impl SharedTraffic {
    #[inline]
    fn count(&self, destination: MacAddress, bytes: u32) {
        let count = match Destination::of(destination) {
            Destination::Directed => &self.directed,
            Destination::Multicast => &self.multicast,
            Destination::Broadcast => &self.broadcast,
        };
        add(&count.frames, 1);
        add(&count.bytes, bytes.into());
    }

    fn read(&self) -> Traffic {
        Traffic {
            directed: self.directed.read(),
            multicast: self.multicast.read(),
            broadcast: self.broadcast.read(),
        }
    }
}

impl SharedCount {
    fn read(&self) -> Count {
        Count {
            frames: self.frames.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// Adds to a counter with one writer. Most rounds drop nothing.
fn add(counter: &AtomicU64, count: u64) {
    if count != 0 {
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }
}
