//! Workers without threads, for measurements and deterministic tests.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::handler::ChannelHandler;
use crate::worker::Worker;
use crate::workers::Shared;

/// The channels of devices without threads. [`InlineWorkers::serve`] serves them, and nothing else
/// does. Clones share the channels.
///
/// One call does exactly the work of a worker's thread between two sleeps, so equal calls give
/// equal packets and signals in the same order. A handler cannot wake an inline worker when its
/// work finishes: call `serve` again.
#[derive(Clone, Default)]
pub struct InlineWorkers {
    workers: Arc<Mutex<Vec<Box<dyn InlineWorker>>>>,
}

impl InlineWorkers {
    /// Serves each open channel until it has no work, in the order in which they were opened, and
    /// ends those that close or are broken.
    pub fn serve(&self) {
        self.serve_those(|_| true);
    }

    fn serve_those(&self, wanted: impl Fn(&dyn InlineWorker) -> bool) {
        // Outside the lock, as a worker's work may open channels.
        let mut workers = std::mem::take(&mut *self.lock());
        workers.retain_mut(|worker| !wanted(&**worker) || worker.serve());
        let mut now = self.lock();
        workers.append(&mut now);
        *now = workers;
    }

    /// Lets the workers of the paused device `shared` finish their work, within `timeout`.
    pub(crate) fn quiesce<S: Send + 'static>(&self, shared: &Arc<Shared<S>>, timeout: Duration) {
        let end = Instant::now() + timeout;
        let is_of = |worker: &dyn InlineWorker| worker.is_of(shared);
        loop {
            self.serve_those(is_of);
            let left = end.saturating_duration_since(Instant::now());
            let mut workers = self.lock();
            let busy = workers.iter_mut().find(|worker| is_of(&***worker) && !worker.is_quiesced());
            let Some(busy) = busy else { return };
            if left.is_zero() {
                return;
            }
            busy.wait_for_handler(left);
        }
    }

    pub(crate) fn add<H: ChannelHandler>(&self, worker: Worker<H>) {
        self.lock().push(Box::new(worker));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Box<dyn InlineWorker>>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for InlineWorkers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InlineWorkers({} channels)", self.lock().len())
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
