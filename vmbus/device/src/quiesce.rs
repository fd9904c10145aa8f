//! Pause of a device: tracks which workers may still touch guest memory.
//!
//! A paused device's workers take no packets. Each worker finishes its requests in flight; it is
//! then *quiesced* and leaves the state that is needed to resume. The wait for it has a timeout: a
//! worker with stalled requests is quiesced when they end, and its channel cannot be saved before.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::outbox::SavedPacket;

/// The state of a quiesced channel.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Quiesced<S> {
    /// Packets for the guest that are not in its ring yet, oldest first.
    pub packets: Vec<SavedPacket>,
    /// The handler's part of the state.
    pub state: S,
}

impl<S> Quiesced<S> {
    pub(crate) fn new(packets: Vec<SavedPacket>, state: S) -> Self {
        Self { packets, state }
    }
}

/// The pause state of a device and its workers.
#[derive(Debug)]
pub(crate) struct Pause<S> {
    /// Read without the lock, written under it.
    is_paused: AtomicBool,
    workers: Mutex<WorkerStates<S>>,
    changed: Condvar,
}

#[derive(Debug)]
struct WorkerStates<S> {
    running: usize,
    /// The states of quiesced workers by subchannel.
    quiesced: BTreeMap<u16, Quiesced<S>>,
}

impl<S> Default for Pause<S> {
    fn default() -> Self {
        let workers = WorkerStates { running: 0, quiesced: BTreeMap::new() };
        Self {
            is_paused: AtomicBool::new(false),
            workers: Mutex::new(workers),
            changed: Condvar::new(),
        }
    }
}

impl<S: Clone> Pause<S> {
    /// Returns true if no worker may take a packet.
    #[inline]
    pub(crate) fn is_paused(&self) -> bool {
        self.is_paused.load(Ordering::Acquire)
    }

    /// Begins or ends the pause.
    pub(crate) fn set(&self, is_paused: bool) {
        let _workers = self.lock();
        self.is_paused.store(is_paused, Ordering::Release);
    }

    /// Waits until every worker is quiesced, for at most `timeout`. Returns the number of other
    /// workers.
    pub(crate) fn wait(&self, timeout: Duration) -> usize {
        let workers = self.lock();
        let waited =
            self.changed.wait_timeout_while(workers, timeout, |workers| workers.running != 0);
        waited.unwrap_or_else(PoisonError::into_inner).0.running
    }

    /// Returns the state of channel `subchannel`, if it is quiesced.
    pub(crate) fn quiesced(&self, subchannel: u16) -> Option<Quiesced<S>> {
        self.lock().quiesced.get(&subchannel).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, WorkerStates<S>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a worker as running while it may touch guest memory.
#[derive(Debug)]
pub(crate) struct WorkerGuard<S: Clone> {
    pause: Arc<Pause<S>>,
    subchannel: u16,
    is_quiesced: bool,
}

impl<S: Clone> WorkerGuard<S> {
    /// Counts a new, running worker.
    pub(crate) fn new(pause: Arc<Pause<S>>, subchannel: u16) -> Self {
        pause.lock().running += 1;
        Self { pause, subchannel, is_quiesced: false }
    }

    /// Quiesces the worker if the device is paused. The worker has no requests in flight, and
    /// touches no guest memory until [`WorkerGuard::resume`].
    pub(crate) fn quiesce(&mut self, state: Quiesced<S>) {
        let mut workers = self.pause.lock();
        if !self.is_quiesced && self.pause.is_paused() {
            self.is_quiesced = true;
            workers.running -= 1;
            workers.quiesced.insert(self.subchannel, state);
            self.pause.changed.notify_all();
        }
    }

    /// Resumes the worker if it is quiesced. Returns false if the device is still paused.
    #[inline]
    pub(crate) fn resume(&mut self) -> bool {
        !self.is_quiesced || self.try_resume()
    }

    fn try_resume(&mut self) -> bool {
        let mut workers = self.pause.lock();
        if self.pause.is_paused() {
            return false;
        }
        self.is_quiesced = false;
        workers.running += 1;
        workers.quiesced.remove(&self.subchannel);
        true
    }

    /// Returns true if the worker is quiesced.
    pub(crate) fn is_quiesced(&self) -> bool {
        self.is_quiesced
    }
}

impl<S: Clone> Drop for WorkerGuard<S> {
    fn drop(&mut self) {
        let mut workers = self.pause.lock();
        if self.is_quiesced {
            workers.quiesced.remove(&self.subchannel);
        } else {
            workers.running -= 1;
            self.pause.changed.notify_all();
        }
    }
}
