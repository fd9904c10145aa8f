//! Workers without threads: for measuring, and for tests in which nothing may happen by itself.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::run::Worker;
use crate::controller::Controller;

/// The channels of controllers that have no threads: they are served when somebody says so, and only then. Clones share them.
///
/// Exactly what a worker's thread does between two sleeps happens in one [`InlineWorkers::serve`], so the same calls give the same packets
/// and signals in the same order. Queues that finish requests by themselves have nothing to wake: call again.
#[derive(Clone, Default)]
pub struct InlineWorkers {
    workers: Arc<Mutex<Vec<Worker>>>,
}

impl InlineWorkers {
    /// Serves each open channel until it has nothing to do, in the order in which they were opened, and ends those that close or are broken.
    pub fn serve(&self) {
        self.serve_those(|_| true);
    }

    fn serve_those(&self, which: impl Fn(&Worker) -> bool) {
        // Out of the lock: what a worker does may open channels and ends with giving them back to the bus.
        let mut workers = std::mem::take(&mut *self.lock());
        workers.retain_mut(|worker| match if which(worker) { worker.serve() } else { Ok(true) } {
            Ok(true) => true,
            Ok(false) => {
                worker.drain();
                false
            }
            Err(fault) => {
                worker.report(&fault);
                false
            }
        });
        let mut now = self.lock();
        workers.append(&mut now);
        *now = workers;
    }

    /// Has the workers of `controller`, which stands still, finish what they have, for as long as `limit` at most.
    pub(crate) fn park(&self, controller: &Arc<Controller>, limit: Duration) {
        let end = Instant::now() + limit;
        loop {
            self.serve_those(|worker| worker.is_of(controller));
            let left = end.saturating_duration_since(Instant::now());
            let mut workers = self.lock();
            let Some(busy) =
                workers.iter_mut().find(|worker| worker.is_of(controller) && !worker.is_parked())
            else {
                return;
            };
            if left.is_zero() {
                return;
            }
            busy.wait_for_queues(left);
        }
    }

    pub(super) fn add(&self, worker: Worker) {
        self.lock().push(worker);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Worker>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for InlineWorkers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InlineWorkers({} channels)", self.lock().len())
    }
}
