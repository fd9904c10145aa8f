//! A gate at which calls of the code under test wait.

use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

use vmm_sys_util::eventfd::EventFd;

/// A wait that takes this long has failed, because no test depends on time.
const FOREVER: Duration = Duration::from_secs(60);

/// A gate that lets calls pass, or makes them wait. It is open at first.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_closed: bool,
    /// The thread of each call since the gate was closed.
    callers: Vec<ThreadId>,
    /// Events that are written when the gate opens.
    events: Vec<Arc<EventFd>>,
}

impl Gate {
    /// Returns a gate that is closed.
    pub fn closed() -> Self {
        let gate = Self::default();
        gate.close();
        gate
    }

    /// Makes later calls wait.
    ///
    /// # Panics
    /// A call has panicked at the gate.
    pub fn close(&self) {
        let mut state = self.state.lock().unwrap();
        state.is_closed = true;
        state.callers.clear();
    }

    /// Lets all present and later calls pass.
    ///
    /// # Panics
    /// An event cannot be written, or a call has panicked at the gate.
    pub fn open(&self) {
        let mut state = self.state.lock().unwrap();
        state.is_closed = false;
        state.events.iter().for_each(|event| event.write(1).unwrap());
        self.changed.notify_all();
    }

    /// Makes every opening of the gate write `event`, for queues that may not block their thread.
    ///
    /// # Panics
    /// A call has panicked at the gate.
    pub fn write_when_opened(&self, event: Arc<EventFd>) {
        self.state.lock().unwrap().events.push(event);
    }

    /// Returns whether calls wait.
    ///
    /// # Panics
    /// A call has panicked at the gate.
    pub fn is_closed(&self) -> bool {
        self.state.lock().unwrap().is_closed
    }

    /// Passes the gate, or waits until it is open.
    ///
    /// # Panics
    /// The gate stays closed for a minute: the thread that would open it waits for this call.
    pub fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.callers.push(thread::current().id());
        self.changed.notify_all();
        let closed = |state: &mut State| state.is_closed;
        let (state, waited) = self.changed.wait_timeout_while(state, FOREVER, closed).unwrap();
        drop(state);
        assert!(!waited.timed_out(), "the test waits for a call that waits for the test");
    }

    /// Waits until `calls` calls have arrived since the gate was closed. Returns the thread of each
    /// call that has.
    ///
    /// # Panics
    /// The calls do not arrive for a minute.
    pub fn wait_for(&self, calls: usize) -> Vec<ThreadId> {
        let state = self.state.lock().unwrap();
        let missing = |state: &mut State| state.callers.len() < calls;
        let (state, waited) = self.changed.wait_timeout_while(state, FOREVER, missing).unwrap();
        let callers = state.callers.clone();
        drop(state);
        assert!(!waited.timed_out(), "the call never came");
        callers
    }
}
