//! A synthetic interrupt controller that keeps messages and counts signals, for one thread that
//! waits for either.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use vmbus_host::{Signal, Synic};
use vmm_sys_util::eventfd::EventFd;

/// A wait of this length has failed. Nothing else here depends on time.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Keeps every message until the guest takes it, and counts the signals of each channel.
pub struct CountingSynic {
    state: Mutex<State>,
    changed: Condvar,
    /// Signals by event flag. Without a lock, so that a bench of a device does not measure it.
    events: Box<[AtomicU64]>,
    /// Threads that wait for a signal.
    waiting: AtomicUsize,
}

#[derive(Default)]
struct State {
    messages: VecDeque<Vec<u8>>,
    doorbells: HashMap<u32, EventFd>,
}

impl Default for CountingSynic {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            events: (0..2048).map(|_| AtomicU64::new(0)).collect(),
            waiting: AtomicUsize::new(0),
        }
    }
}

impl CountingSynic {
    /// Returns the next message, and waits for it.
    ///
    /// # Panics
    /// None arrives within a minute.
    #[must_use]
    pub fn next_message(&self) -> Vec<u8> {
        let state = self.state.lock().unwrap();
        let (mut state, timeout) = self
            .changed
            .wait_timeout_while(state, TIMEOUT, |state| state.messages.is_empty())
            .unwrap();
        assert!(!timeout.timed_out(), "no message has arrived");
        state.messages.pop_front().unwrap()
    }

    /// Returns the number of signals of `flag` so far.
    #[must_use]
    pub fn events(&self, flag: u16) -> u64 {
        self.events[usize::from(flag)].load(Ordering::SeqCst)
    }

    /// Waits until there were more than `seen` signals of `flag`. Returns their number.
    ///
    /// # Panics
    /// There are none within a minute.
    pub fn wait_event(&self, flag: u16, seen: u64) -> u64 {
        let state = self.state.lock().unwrap();
        // Before the first look, so that a signal which that look misses wakes this thread.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let (state, timeout) =
            self.changed.wait_timeout_while(state, TIMEOUT, |_| self.events(flag) <= seen).unwrap();
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        drop(state);
        assert!(!timeout.timed_out(), "no signal has arrived");
        self.events(flag)
    }

    /// Forgets all doorbells, as a new bus binds its own.
    pub fn forget_doorbells(&self) {
        self.state.lock().unwrap().doorbells.clear();
    }

    /// Returns the doorbell that is bound to `connection_id`.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn doorbell(&self, connection_id: u32) -> EventFd {
        self.state.lock().unwrap().doorbells[&connection_id].try_clone().unwrap()
    }
}

impl Synic for CountingSynic {
    fn vp_count(&self) -> u32 {
        4
    }

    fn post_message(&self, _vp: u32, _sint: u8, message: &[u8]) {
        self.state.lock().unwrap().messages.push_back(message.to_vec());
        self.changed.notify_all();
    }

    fn discard_messages(&self) {
        self.state.lock().unwrap().messages.clear();
    }

    fn signal_event(&self, _vp: u32, _sint: u8, flag: u16) -> Signal {
        self.events[usize::from(flag)].fetch_add(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) != 0 {
            // With the lock, so that the waiting thread has seen the signal or sleeps.
            drop(self.state.lock().unwrap());
            self.changed.notify_all();
        }
        Signal::Raised
    }

    fn bind_doorbell(&self, connection_id: u32, event: &EventFd) -> io::Result<()> {
        self.state.lock().unwrap().doorbells.insert(connection_id, event.try_clone()?);
        Ok(())
    }

    fn unbind_doorbell(&self, connection_id: u32, _event: &EventFd) {
        self.state.lock().unwrap().doorbells.remove(&connection_id);
    }
}
