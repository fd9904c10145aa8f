//! The state that the loop's thread, the bus, the devices and reports share.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use vmbus_host::{Channel, ConnectHandler, ConnectRequest};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::counters::Counters;
use crate::limits::MAX_REQUESTS;

/// The part of the sockets that all threads share.
#[derive(Debug)]
pub(crate) struct Shared {
    inbox: Mutex<Inbox>,
    /// Wakes the loop.
    pub(crate) wake: EventFd,
    pub(crate) pause: Pause,
    pub(crate) counters: Counters,
}

/// The queue to the loop.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// The guest's requests, at most [`MAX_REQUESTS`].
    pub(crate) requests: VecDeque<ConnectRequest>,
    /// Channels that the guest has opened, by connection.
    pub(crate) opened: Vec<(u64, Channel)>,
    /// Connections that the bus has dropped: the guest has released them or was reset.
    pub(crate) removed: Vec<u64>,
    /// The machine ends.
    pub(crate) stop: bool,
}

impl Shared {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            inbox: Mutex::default(),
            wake: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            pause: Pause::default(),
            counters: Counters::default(),
        })
    }

    /// Changes the inbox and wakes the loop.
    pub(crate) fn tell<T>(&self, change: impl FnOnce(&mut Inbox) -> T) -> T {
        let result = change(&mut lock(&self.inbox));
        // A write fails only if the counter is full, and then the event is readable already.
        let _ = self.wake.write(1);
        result
    }

    /// Returns the inbox without waking the loop.
    pub(crate) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        lock(&self.inbox)
    }
}

impl ConnectHandler for Shared {
    fn connect(&self, request: ConnectRequest) -> bool {
        let is_taken = self.tell(|inbox| {
            let has_space = inbox.requests.len() < MAX_REQUESTS;
            if has_space {
                inbox.requests.push_back(request);
            }
            has_space
        });
        if !is_taken {
            self.counters.failed.add(1);
        }
        is_taken
    }
}

/// Stops the loop while a device is paused.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    state: Mutex<PauseState>,
    rests: Condvar,
}

#[derive(Debug, Default)]
struct PauseState {
    /// Paused devices.
    devices: usize,
    /// The loop may touch guest memory.
    works: bool,
}

impl Pause {
    /// Counts a paused device, and waits until the loop does not touch guest memory.
    pub(crate) fn begin(&self) {
        let mut state = lock(&self.state);
        state.devices += 1;
        let rests = self.rests.wait_while(state, |state| state.works);
        drop(rests.unwrap_or_else(PoisonError::into_inner));
    }

    /// Counts a paused device less. The caller wakes the loop.
    pub(crate) fn end(&self) {
        let mut state = lock(&self.state);
        state.devices = state.devices.saturating_sub(1);
    }

    pub(crate) fn is_paused(&self) -> bool {
        lock(&self.state).devices != 0
    }

    /// Returns a guard with which the loop may touch guest memory. `None`: a device is paused.
    pub(crate) fn work(&self) -> Option<Work<'_>> {
        let mut state = lock(&self.state);
        (state.devices == 0).then(|| {
            state.works = true;
            Work(self)
        })
    }
}

/// The loop may touch guest memory until this is dropped.
pub(crate) struct Work<'a>(&'a Pause);

impl Drop for Work<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).works = false;
        self.0.rests.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No invariant of these values can be broken by a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A device's share of the pause.
#[derive(Debug)]
pub(crate) struct DevicePause {
    shared: Arc<Shared>,
    is_paused: bool,
}

impl DevicePause {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, is_paused: false }
    }

    pub(crate) fn begin(&mut self) {
        if !self.is_paused {
            self.is_paused = true;
            self.shared.pause.begin();
        }
    }

    pub(crate) fn end(&mut self) {
        if self.is_paused {
            self.is_paused = false;
            self.shared.pause.end();
            self.shared.tell(|_| ());
        }
    }
}

impl Drop for DevicePause {
    fn drop(&mut self) {
        self.end();
    }
}
