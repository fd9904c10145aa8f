//! Probes and gates for the tests of this crate.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// A wait that takes this long has failed, because nothing here depends on time.
const FOREVER: Duration = Duration::from_secs(60);

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

/// A gate that is open at first.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    shut: bool,
    arrivals: usize,
}

impl Gate {
    /// Makes later calls wait.
    pub(crate) fn shut(&self) {
        *self.state.lock().unwrap() = GateState { shut: true, arrivals: 0 };
    }

    /// Lets all calls pass.
    pub(crate) fn open(&self) {
        self.state.lock().unwrap().shut = false;
        self.changed.notify_all();
    }

    /// Waits until a call has arrived at the gate.
    pub(crate) fn wait_for_arrival(&self) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |state| state.arrivals == 0).unwrap());
    }

    /// Passes the gate, or waits for it to open.
    ///
    /// # Panics
    /// The gate stays shut for a minute: the thread that would open it waits for this call.
    pub(crate) fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.arrivals += 1;
        self.changed.notify_all();
        let shut = |state: &mut GateState| state.shut;
        let (state, waited) = self.changed.wait_timeout_while(state, FOREVER, shut).unwrap();
        drop(state);
        assert!(!waited.timed_out(), "the test waits for a call that waits for the test");
    }
}
