//! An interrupt controller that keeps messages and counts events, for one thread that waits for
//! either.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use vmbus_host::{Signal, Synic};
use vmm_sys_util::eventfd::EventFd;

/// A wait that takes this long has failed: nothing here depends on time.
const FOREVER: Duration = Duration::from_secs(60);

pub struct TestSynic {
    state: Mutex<State>,
    changed: Condvar,
    /// Events by flag. Without a lock, so that measuring a device does not measure this.
    events: Box<[AtomicU64]>,
    /// Threads that wait for an event.
    waiting: AtomicUsize,
}

#[derive(Default)]
struct State {
    messages: VecDeque<Vec<u8>>,
    doorbells: HashMap<u32, EventFd>,
}

impl Default for TestSynic {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            events: (0..2048).map(|_| AtomicU64::new(0)).collect(),
            waiting: AtomicUsize::new(0),
        }
    }
}

impl TestSynic {
    pub fn next_message(&self) -> Vec<u8> {
        let state = self.state.lock().unwrap();
        let (mut state, timeout) = self
            .changed
            .wait_timeout_while(state, FOREVER, |state| state.messages.is_empty())
            .unwrap();
        assert!(!timeout.timed_out(), "the message never came");
        state.messages.pop_front().unwrap()
    }

    /// Events of `flag` so far.
    pub fn events(&self, flag: u16) -> u64 {
        self.events[usize::from(flag)].load(Ordering::SeqCst)
    }

    /// Waits until more than `seen` events of `flag` came; returns how many.
    pub fn wait_event(&self, flag: u16, seen: u64) -> u64 {
        let state = self.state.lock().unwrap();
        // Said before looking, so that an event that is not seen here wakes.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let (state, timeout) =
            self.changed.wait_timeout_while(state, FOREVER, |_| self.events(flag) <= seen).unwrap();
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        drop(state);
        assert!(!timeout.timed_out(), "the event never came");
        self.events(flag)
    }

    pub fn forget_doorbells(&self) {
        self.state.lock().unwrap().doorbells.clear();
    }

    pub fn doorbell(&self, connection_id: u32) -> EventFd {
        self.state.lock().unwrap().doorbells[&connection_id].try_clone().unwrap()
    }
}

impl Synic for TestSynic {
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
            // With the lock, so that whoever waits has seen the event or sleeps.
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
