//! What any thread may read of the server.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// The server's part of the machine's report. Numbers start at 0 with the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ServerReport {
    /// Viewers that are connected, logged in or not.
    pub viewers: u64,
    /// Viewers that have connected.
    pub connections: u64,
    /// Log-ins that failed.
    pub refused_logins: u64,
    /// Viewers that were turned away, as the limit was reached.
    pub turned_away: u64,
    /// Viewers that were dropped, as they did not read or did not log in in time.
    pub dropped: u64,
    /// Viewers that were dropped, as they did not speak the protocol.
    pub malformed: u64,
    /// Updates that were sent.
    pub updates: u64,
    /// Rectangles that were sent.
    pub rectangles: u64,
    /// Rectangles that were sent as they were encoded for another viewer.
    pub shared_rectangles: u64,
    /// Bytes that were sent.
    pub bytes: u64,
    /// Times that changes of the screen were read.
    pub refreshes: u64,
    /// Areas that have moved, and that viewers copy (CopyRect).
    pub copied_rectangles: u64,
    /// Segments, 16 pixels of a row, that were compared.
    pub compared_segments: u64,
    /// Segments that had changed.
    pub changed_segments: u64,
}

/// A counter of the server's thread.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, count: usize) {
        self.0.store(count as u64, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters as the server's thread counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) viewers: Counter,
    pub(crate) connections: Counter,
    pub(crate) refused_logins: Counter,
    pub(crate) turned_away: Counter,
    pub(crate) dropped: Counter,
    pub(crate) malformed: Counter,
    pub(crate) updates: Counter,
    pub(crate) rectangles: Counter,
    pub(crate) shared_rectangles: Counter,
    pub(crate) bytes: Counter,
    pub(crate) refreshes: Counter,
    pub(crate) copied_rectangles: Counter,
    pub(crate) compared_segments: Counter,
    pub(crate) changed_segments: Counter,
}

impl Counters {
    pub(crate) fn read(&self) -> ServerReport {
        ServerReport {
            viewers: self.viewers.get(),
            connections: self.connections.get(),
            refused_logins: self.refused_logins.get(),
            turned_away: self.turned_away.get(),
            dropped: self.dropped.get(),
            malformed: self.malformed.get(),
            updates: self.updates.get(),
            rectangles: self.rectangles.get(),
            shared_rectangles: self.shared_rectangles.get(),
            bytes: self.bytes.get(),
            refreshes: self.refreshes.get(),
            copied_rectangles: self.copied_rectangles.get(),
            compared_segments: self.compared_segments.get(),
            changed_segments: self.changed_segments.get(),
        }
    }
}
