//! The count of an image's changes that are not durable.

use std::sync::atomic::{AtomicU64, Ordering};

/// The number of changes made to structures in the files, and the number of them known to be
/// durable.
#[derive(Debug)]
pub(crate) struct Changes {
    made: AtomicU64,
    durable: AtomicU64,
}

impl Changes {
    pub(crate) const fn new() -> Self {
        Self { made: AtomicU64::new(0), durable: AtomicU64::new(0) }
    }

    /// Counts a change, which must be in the file already and must not be published yet. A flush
    /// that begins later covers it, and a forced write to a location that it publishes is followed
    /// by a flush.
    pub(crate) fn count(&self) {
        self.made.fetch_add(1, Ordering::AcqRel);
    }

    /// Returns whether there are changes that are not known to be durable.
    pub(crate) fn is_unflushed(&self) -> bool {
        self.made.load(Ordering::Acquire) > self.durable.load(Ordering::Acquire)
    }

    /// Begins a flush of the written files. The caller passes the result to [`Changes::flushed`]
    /// when all of them have succeeded.
    pub(crate) fn flushing(&self) -> u64 {
        self.made.load(Ordering::Acquire)
    }

    /// Ends the flush that began with `token` and succeeded.
    pub(crate) fn flushed(&self, token: u64) {
        self.durable.fetch_max(token, Ordering::AcqRel);
    }
}
