//! What any thread may read of the device.

use std::sync::atomic::{AtomicU64, Ordering};

/// The counters of a video device. They start at 0 with the device and never decrease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VideoCounters {
    /// Messages with changed rectangles.
    pub updates: u64,
    /// Changed rectangles on the screen.
    pub rectangles: u64,
    /// Changes of the mode.
    pub modes: u64,
    /// Shapes of the pointer.
    pub shapes: u64,
    /// Messages, addresses and modes that were refused.
    pub refused: u64,
}

/// The counters as the handler counts.
#[derive(Debug, Default)]
pub(crate) struct SharedCounters {
    pub(crate) updates: Counter,
    pub(crate) rectangles: Counter,
    pub(crate) modes: Counter,
    pub(crate) shapes: Counter,
    pub(crate) refused: Counter,
}

/// A counter with one writer at a time.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl SharedCounters {
    pub(crate) fn read(&self) -> VideoCounters {
        VideoCounters {
            updates: self.updates.get(),
            rectangles: self.rectangles.get(),
            modes: self.modes.get(),
            shapes: self.shapes.get(),
            refused: self.refused.get(),
        }
    }
}
