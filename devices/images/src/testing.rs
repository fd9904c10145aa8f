//! A probe for the tests of this crate.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use synthvm_block::conformance::Gate;

/// Watches the structures of one file.
#[derive(Debug, Default)]
pub(crate) struct Probe {
    syncs: AtomicU64,
    written: AtomicU64,
    fail: AtomicBool,
    /// The gate at which syncs wait.
    pub(crate) gate: Gate,
}

impl Probe {
    /// Counts a sync of the file.
    ///
    /// # Errors
    /// The error that a test has asked for.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.gate.pass();
        if self.fail.swap(false, Ordering::Relaxed) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        Ok(())
    }

    /// Makes the next sync fail.
    pub(crate) fn fail_next_sync(&self) {
        self.fail.store(true, Ordering::Relaxed);
    }

    /// Counts a write of `bytes` bytes.
    pub(crate) fn write(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Returns the syncs and the bytes written since the last call.
    pub(crate) fn take(&self) -> (u64, u64) {
        (self.syncs.swap(0, Ordering::Relaxed), self.written.swap(0, Ordering::Relaxed))
    }
}
