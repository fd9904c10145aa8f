//! Pause: which workers of a device may still touch guest memory.
//!
//! A pause lets no worker take a packet, and waits until each has finished the work that it had:
//! the worker is then *quiesced* and leaves the state that is needed to resume. The wait has a
//! timeout: a worker whose work stalls is quiesced when that comes back, and its channel cannot be
//! saved before.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::outbox::SavedPacket;

/// The state of a quiesced channel.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Quiesced<S> {
    /// Packets for the guest that are not yet in its ring, oldest first.
    pub packets: Vec<SavedPacket>,
    /// The handler's part.
    pub state: S,
}

impl<S> Quiesced<S> {
    pub(crate) fn new(packets: Vec<SavedPacket>, state: S) -> Self {
        Self { packets, state }
    }
}

/// Whether a device is paused, and which of its workers are quiesced.
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
    /// By subchannel.
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
    /// Whether no worker may take a packet.
    #[inline]
    pub(crate) fn is_paused(&self) -> bool {
        self.is_paused.load(Ordering::Acquire)
    }

    /// Begins or ends the pause.
    pub(crate) fn set(&self, is_paused: bool) {
        let _workers = self.lock();
        self.is_paused.store(is_paused, Ordering::Release);
    }

    /// Waits until every worker is quiesced, for `timeout` at most. Returns how many are not.
    pub(crate) fn wait(&self, timeout: Duration) -> usize {
        let workers = self.lock();
        let waited =
            self.changed.wait_timeout_while(workers, timeout, |workers| workers.running != 0);
        waited.unwrap_or_else(PoisonError::into_inner).0.running
    }

    /// Returns the state of the quiesced channel `subchannel`.
    pub(crate) fn quiesced(&self, subchannel: u16) -> Option<Quiesced<S>> {
        self.lock().quiesced.get(&subchannel).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, WorkerStates<S>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a worker as long as it can touch guest memory.
#[derive(Debug)]
pub(crate) struct WorkerGuard<S: Clone> {
    pause: Arc<Pause<S>>,
    subchannel: u16,
    is_quiesced: bool,
}

impl<S: Clone> WorkerGuard<S> {
    /// Counts a new worker, which runs.
    pub(crate) fn new(pause: Arc<Pause<S>>, subchannel: u16) -> Self {
        pause.lock().running += 1;
        Self { pause, subchannel, is_quiesced: false }
    }

    /// The worker has nothing in flight. If the device is paused, it touches no guest memory from
    /// here on.
    pub(crate) fn quiesce(&mut self, state: Quiesced<S>) {
        let mut workers = self.pause.lock();
        if !self.is_quiesced && self.pause.is_paused() {
            self.is_quiesced = true;
            workers.running -= 1;
            workers.quiesced.insert(self.subchannel, state);
            self.pause.changed.notify_all();
        }
    }

    /// Resumes the worker if it is quiesced. False: the device is still paused.
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

    /// Whether the worker may touch no guest memory.
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
