//! The connection between the sink and a device.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::queue::MAX_KEYS;

/// The error of input that the guest does not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// The guest's driver has not connected.
    #[error("the guest has no driver for it yet, or has stopped it")]
    NotConnected,
    /// The guest takes its input too slowly.
    #[error("the guest has not taken the earlier input yet; at most {MAX_KEYS} events wait")]
    Full,
}

/// The counters of a device. They start at 0 with the device and never decrease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct InputCounters {
    /// Events that the guest got.
    pub sent: u64,
    /// Events that the guest did not get: it was not connected, or the queue was full.
    pub dropped: u64,
    /// Reports of the pointer that a later one replaced.
    pub replaced: u64,
    /// Messages of the guest that were refused.
    pub refused: u64,
}

/// The connection between the sink and a device.
#[derive(Debug)]
pub(crate) struct Port<Q> {
    state: Mutex<PortState<Q>>,
    /// Readable while the guest takes input and events wait.
    event: EventFd,
}

#[derive(Debug, Default)]
pub(crate) struct PortState<Q> {
    pub(crate) queue: Q,
    pub(crate) counters: InputCounters,
    /// The guest takes input.
    pub(crate) is_ready: bool,
}

impl<Q: Default> Port<Q> {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { state: Mutex::default(), event: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)? })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, PortState<Q>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds `count` events to the queue of a guest that takes input.
    pub(crate) fn push(
        &self,
        count: usize,
        push: impl FnOnce(&mut Q) -> Result<(), InputError>,
    ) -> Result<(), InputError> {
        let mut state = self.lock();
        let pushed =
            if state.is_ready { push(&mut state.queue) } else { Err(InputError::NotConnected) };
        match pushed {
            // A write fails only if the counter is full, and then it is readable already.
            Ok(()) => drop(self.event.write(1)),
            Err(_) => state.counters.dropped += count as u64,
        }
        pushed
    }

    /// Notes whether the guest takes input. Events that wait are dropped with the connection.
    pub(crate) fn set_ready(&self, is_ready: bool) {
        let mut state = self.lock();
        if state.is_ready != is_ready {
            state.is_ready = is_ready;
            state.queue = Q::default();
        }
    }

    /// Clears the descriptor. Must be called with the lock that shows the queue to be empty.
    pub(crate) fn clear_event(&self, _empty: &MutexGuard<'_, PortState<Q>>) {
        let _ = self.event.read();
    }

    pub(crate) fn event_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}
