//! Workers without threads, for measurements and deterministic tests.

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use crate::handler::ChannelHandler;
use crate::shared::Shared;
use crate::worker::Worker;

/// The channels of devices without threads. [`InlineWorkers::serve`] serves them, and nothing else
/// does. Clones share the channels.
///
/// One call does exactly the work of a worker's thread between two sleeps, so equal calls give
/// equal packets and signals in the same order. A handler cannot wake an inline worker when its
/// work finishes: call `serve` again.
#[derive(Clone, Default)]
pub struct InlineWorkers {
    channels: Arc<Channels>,
}

#[derive(Default)]
struct Channels {
    /// Locked while they work.
    workers: Mutex<Vec<Box<dyn InlineWorker>>>,
    /// Channels that opened since. They have a lock of their own, as a worker's work may open one.
    opened: Mutex<Vec<Box<dyn InlineWorker>>>,
    /// `opened` has workers. Read without the lock, written under it.
    any_opened: AtomicBool,
}

impl InlineWorkers {
    /// Serves each open channel until it has no work, in the order in which they were opened, and
    /// ends those that close or are broken. Channels that are being served already, by another
    /// thread or by the caller of a handler, are left alone.
    pub fn serve(&self) {
        if let Some(mut turns) = self.turns() {
            turns.serve();
        }
    }

    /// Returns the right to serve the channels, for many calls without a lock for each. `None`: the
    /// channels are being served. Until it is dropped, nothing else serves them, and a device that
    /// is paused is not quiesced.
    #[must_use]
    pub fn turns(&self) -> Option<InlineTurns<'_>> {
        Some(InlineTurns { channels: &self.channels, workers: self.workers()? })
    }

    /// Lets the workers of the paused device `shared` finish their work, within `timeout`.
    pub(crate) fn quiesce<S: Send + 'static>(&self, shared: &Arc<Shared<S>>, timeout: Duration) {
        let end = Instant::now() + timeout;
        let is_of = |worker: &dyn InlineWorker| worker.is_of(shared);
        while let Some(mut workers) = self.workers() {
            workers.retain_mut(|worker| !is_of(&**worker) || worker.serve());
            let left = end.saturating_duration_since(Instant::now());
            let busy = workers.iter_mut().find(|worker| is_of(&***worker) && !worker.is_quiesced());
            let Some(busy) = busy else { return };
            if left.is_zero() {
                return;
            }
            busy.wait_for_handler(left);
        }
    }

    pub(crate) fn add<H: ChannelHandler>(&self, worker: Worker<H>) {
        let mut opened = lock(&self.channels.opened);
        opened.push(Box::new(worker));
        self.channels.any_opened.store(true, Ordering::Release);
    }

    /// Returns the workers of all channels, or `None` if they are being served.
    #[inline]
    fn workers(&self) -> Option<MutexGuard<'_, Vec<Box<dyn InlineWorker>>>> {
        let mut workers = match self.channels.workers.try_lock() {
            Ok(workers) => workers,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        self.channels.move_opened(&mut workers);
        Some(workers)
    }
}

/// The right to serve the channels of [`InlineWorkers`]: see [`InlineWorkers::turns`].
pub struct InlineTurns<'a> {
    channels: &'a Channels,
    workers: MutexGuard<'a, Vec<Box<dyn InlineWorker>>>,
}

impl InlineTurns<'_> {
    /// Serves each open channel, as [`InlineWorkers::serve`] does.
    #[inline]
    pub fn serve(&mut self) {
        self.channels.move_opened(&mut self.workers);
        self.workers.retain_mut(|worker| worker.serve());
    }
}

impl fmt::Debug for InlineTurns<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InlineTurns({} channels)", self.workers.len())
    }
}

impl Channels {
    #[inline]
    fn move_opened(&self, workers: &mut Vec<Box<dyn InlineWorker>>) {
        if self.any_opened.load(Ordering::Acquire) {
            let mut opened = lock(&self.opened);
            self.any_opened.store(false, Ordering::Release);
            workers.append(&mut opened);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for InlineWorkers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.workers() {
            Some(workers) => write!(f, "InlineWorkers({} channels)", workers.len()),
            None => f.write_str("InlineWorkers(being served)"),
        }
    }
}

/// A worker of any device.
trait InlineWorker: Send {
    /// Works until no work is left. Returns false if the worker has ended.
    fn serve(&mut self) -> bool;

    fn wait_for_handler(&mut self, left: Duration);

    fn is_quiesced(&self) -> bool;

    /// Returns true if the worker belongs to the device with the state `shared`.
    fn is_of(&self, shared: &dyn Any) -> bool;
}

impl<H: ChannelHandler> InlineWorker for Worker<H> {
    fn serve(&mut self) -> bool {
        match Worker::serve(self) {
            Ok(true) => true,
            Ok(false) => {
                self.drain();
                false
            }
            Err(fault) => {
                self.report(&fault);
                false
            }
        }
    }

    fn wait_for_handler(&mut self, left: Duration) {
        Worker::wait_for_handler(self, left);
    }

    fn is_quiesced(&self) -> bool {
        Worker::is_quiesced(self)
    }

    fn is_of(&self, shared: &dyn Any) -> bool {
        shared
            .downcast_ref::<Arc<Shared<H::State>>>()
            .is_some_and(|shared| Arc::ptr_eq(self.shared(), shared))
    }
}
