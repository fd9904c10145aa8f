//! An interrupt controller that keeps messages and counts events, for one thread that waits for either.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use vmbus_host::{Signal, Synic};
use vmm_sys_util::eventfd::EventFd;

/// A wait that takes this long has failed: nothing here depends on time.
const FOREVER: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct TestSynic {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    messages: VecDeque<Vec<u8>>,
    events: HashMap<u16, u64>,
    doorbells: HashMap<u32, EventFd>,
}

impl TestSynic {
    pub fn next_message(&self) -> Vec<u8> {
        let state = self.state.lock().unwrap();
        let (mut state, timeout) =
            self.changed.wait_timeout_while(state, FOREVER, |state| state.messages.is_empty()).unwrap();
        assert!(!timeout.timed_out(), "the message never came");
        state.messages.pop_front().unwrap()
    }

    /// Events of `flag` so far.
    pub fn events(&self, flag: u16) -> u64 {
        self.state.lock().unwrap().events.get(&flag).copied().unwrap_or(0)
    }

    /// Waits until more than `seen` events of `flag` came; returns how many.
    pub fn wait_event(&self, flag: u16, seen: u64) -> u64 {
        let state = self.state.lock().unwrap();
        let count = |state: &State| state.events.get(&flag).copied().unwrap_or(0);
        let (state, timeout) =
            self.changed.wait_timeout_while(state, FOREVER, |state| count(state) <= seen).unwrap();
        assert!(!timeout.timed_out(), "the event never came");
        count(&state)
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
        *self.state.lock().unwrap().events.entry(flag).or_default() += 1;
        self.changed.notify_all();
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
