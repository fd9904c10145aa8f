//! The state that the workers of one device share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use vmbus_log::LogRateLimiter;
use vmm_sys_util::eventfd::EventFd;

use crate::quiesce::Pause;

/// The state that all workers of a device share.
#[derive(Debug)]
pub(crate) struct Shared<S> {
    name: String,
    /// The maximum poll window.
    busy_poll: Duration,
    /// A worker's thread may delay interrupts.
    moderation: bool,
    /// The kick of each worker.
    kicks: Mutex<Vec<Weak<EventFd>>>,
    pause: Arc<Pause<S>>,
    /// Number of delayed interrupts.
    moderated: AtomicU64,
    /// Prevents a guest that breaks its channels from filling the log.
    log: LogRateLimiter,
}

impl<S: Clone> Shared<S> {
    /// Returns the state of a device without workers. `busy_poll`: the maximum poll window.
    pub(crate) fn new(name: String, busy_poll: Duration, moderation: bool) -> Self {
        Self {
            name,
            busy_poll,
            moderation,
            kicks: Mutex::default(),
            pause: Arc::default(),
            moderated: AtomicU64::new(0),
            log: LogRateLimiter::default(),
        }
    }

    /// Registers the kick of a worker. [`Shared::kick`] signals it while the worker exists.
    pub(crate) fn register(&self, kick: &Arc<EventFd>) {
        let mut kicks = self.kicks();
        kicks.retain(|kick| kick.strong_count() > 0);
        kicks.push(Arc::downgrade(kick));
    }

    /// Wakes all workers.
    pub(crate) fn kick(&self) {
        for kick in self.kicks().iter().filter_map(Weak::upgrade) {
            // A write fails only if the counter is full, and then the event is readable already.
            let _ = kick.write(1);
        }
    }

    #[inline]
    pub(crate) fn is_paused(&self) -> bool {
        self.pause.is_paused()
    }

    /// Returns the pause state of the device and its workers.
    pub(crate) fn pause(&self) -> &Arc<Pause<S>> {
        &self.pause
    }

    /// Counts a delayed interrupt.
    pub(crate) fn count_moderated(&self) {
        self.moderated.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of delayed interrupts.
    pub(crate) fn moderated(&self) -> u64 {
        self.moderated.load(Ordering::Relaxed)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn log(&self) -> &LogRateLimiter {
        &self.log
    }

    /// Returns the maximum poll window: zero for inline workers, which do not sleep.
    pub(crate) fn busy_poll_limit(&self) -> Duration {
        self.busy_poll
    }

    /// Returns true if a worker's thread may delay interrupts.
    pub(crate) fn moderates(&self) -> bool {
        self.moderation
    }

    fn kicks(&self) -> MutexGuard<'_, Vec<Weak<EventFd>>> {
        self.kicks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
