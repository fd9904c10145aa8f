//! Limits of a disk: requests and bytes per second, of reads, writes, and both.
//!
//! | request | counts as |
//! |---|---|
//! | read | one request and its bytes, of reads and of all |
//! | write, forced or not | one request and its bytes, of writes and of all |
//! | discard, zeroes | one request and no bytes (none are moved), of writes and of all |
//! | flush | nothing: the limits have already delayed the writes that it makes durable |
//!
//! The limits hold for all queues of the disk together. Each queue keeps the order of its requests,
//! and the queues are served in rotation.

mod bucket;
mod stats;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use vmm_sys_util::timerfd::TimerFd;

pub use bucket::{Limits, Rate};
pub use stats::ThrottleStats;

use super::merged::MergedEvent;
use super::{Backend, Completion, Queue, Request, Wrapper};
use bucket::Buckets;
use stats::Delays;

/// A backend with limits around another backend.
pub struct Throttle {
    inner: Arc<dyn Backend>,
    shared: Arc<Shared>,
}

struct Shared {
    started: Instant,
    /// Whether any limit is set. Without limits no request takes the lock.
    limited: AtomicBool,
    /// A counter that grows with each change of the limits. Reservations under older limits are
    /// void.
    generation: AtomicU64,
    buckets: Mutex<Buckets>,
    /// The alarms of the queues, which must ring when the limits change.
    alarms: Mutex<Vec<Weak<Alarm>>>,
    delays: Delays,
}

impl Throttle {
    /// Returns a backend that passes requests to `inner` within `limits`.
    pub fn new(inner: Arc<dyn Backend>, limits: Limits) -> Self {
        let shared = Shared {
            started: Instant::now(),
            limited: AtomicBool::new(limits != Limits::default()),
            generation: AtomicU64::new(0),
            buckets: Mutex::new(Buckets::new(limits)),
            alarms: Mutex::default(),
            delays: Delays::default(),
        };
        Self { inner, shared: Arc::new(shared) }
    }

    /// Sets other limits, also for requests that already wait. Bursts and debts of the old limits
    /// are dropped.
    pub fn set_limits(&self, limits: Limits) {
        let mut buckets = lock(&self.shared.buckets);
        *buckets = Buckets::new(limits);
        self.shared.limited.store(limits != Limits::default(), Ordering::Release);
        self.shared.generation.fetch_add(1, Ordering::AcqRel);
        drop(buckets);
        for alarm in lock(&self.shared.alarms).iter().filter_map(Weak::upgrade) {
            alarm.ring_now();
        }
    }

    /// Returns the present limits.
    pub fn limits(&self) -> Limits {
        lock(&self.shared.buckets).limits()
    }

    /// Returns the counters of the requests that were delayed so far, under all limits.
    pub fn stats(&self) -> ThrottleStats {
        self.shared.delays.snapshot()
    }
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle")
            .field("inner", &self.inner)
            .field("limits", &self.limits())
            .finish()
    }
}

impl Wrapper for Throttle {
    fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    fn wrap_queue(&self, inner: Box<dyn Queue>) -> io::Result<Box<dyn Queue>> {
        let alarm = Arc::new(Alarm::new()?);
        let event = MergedEvent::new(inner.event().into_iter().chain([alarm.fd]))?;
        let mut alarms = lock(&self.shared.alarms);
        alarms.retain(|alarm| alarm.strong_count() != 0);
        alarms.push(Arc::downgrade(&alarm));
        drop(alarms);
        Ok(Box::new(ThrottledQueue {
            event,
            inner,
            shared: Arc::clone(&self.shared),
            alarm,
            waiting: VecDeque::new(),
            reserved: None,
            batch: Vec::new(),
        }))
    }
}

struct ThrottledQueue {
    // The event is the first field, because it must be dropped before the descriptors that it
    // watches.
    event: MergedEvent,
    inner: Box<dyn Queue>,
    shared: Arc<Shared>,
    alarm: Arc<Alarm>,
    /// Waiting requests, each with its time of arrival.
    waiting: VecDeque<(u64, Box<Request>)>,
    /// The earliest start of the first request in `waiting`, and the generation of the limits that
    /// gave it.
    reserved: Option<(u64, u64)>,
    batch: Vec<Box<Request>>,
}

impl ThrottledQueue {
    /// Passes on the requests that may start at `now`, and sets the alarm for the next one.
    fn advance(&mut self, now: u64) {
        loop {
            let generation = self.shared.generation.load(Ordering::Acquire);
            if self.is_early(generation, now) {
                return;
            }
            let wait = self.take_ready(generation, now);
            self.alarm.set(wait);
            // A change of the limits before the alarm was set could not ring it.
            if wait.is_none() || self.shared.generation.load(Ordering::Acquire) == generation {
                break;
            }
        }
        if !self.batch.is_empty() {
            self.inner.submit(&mut self.batch);
        }
    }

    /// Returns whether the alarm is already set for the first request and has not rung: the caller
    /// polls without an event.
    fn is_early(&self, generation: u64, now: u64) -> bool {
        self.reserved.is_some_and(|(start, under)| under == generation && start > now)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.shared.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Moves the requests that may start at `now` into the batch. Returns the delay of the next
    /// one.
    fn take_ready(&mut self, generation: u64, now: u64) -> Option<Duration> {
        while let Some((came, first)) = self.waiting.front() {
            let start = match self.reserved {
                Some((start, under)) if under == generation => start,
                _ => lock(&self.shared.buckets).reserve(first, now),
            };
            if start > now {
                self.reserved = Some((start, generation));
                return Some(Duration::from_nanos(start - now));
            }
            self.reserved = None;
            self.shared.delays.went(first, now.saturating_sub(*came));
            self.batch.extend(self.waiting.pop_front().map(|(_, request)| request));
        }
        None
    }
}

/// A timer that wakes a queue's owner. It is set only while a request waits, to avoid useless
/// wake-ups.
struct Alarm {
    fd: RawFd,
    timer: Mutex<(TimerFd, bool)>,
}

impl Alarm {
    fn new() -> io::Result<Self> {
        let timer = TimerFd::new().map_err(io::Error::from)?;
        Ok(Self { fd: timer.as_raw_fd(), timer: Mutex::new((timer, false)) })
    }

    /// Sets the alarm to ring after `after`, or not at all. An earlier ring is cleared.
    fn set(&self, after: Option<Duration>) {
        let (timer, is_set) = &mut *lock(&self.timer);
        // The time is valid and the timer is open, so neither call can fail.
        match after {
            Some(after) => *is_set = timer.reset(after, None).is_ok(),
            None if *is_set => *is_set = timer.clear().is_err(),
            None => {}
        }
    }

    /// Makes the alarm ring immediately, if it is set.
    fn ring_now(&self) {
        let (timer, is_set) = &mut *lock(&self.timer);
        if *is_set {
            let _ = timer.reset(Duration::from_nanos(1), None);
        }
    }
}

impl Queue for ThrottledQueue {
    fn submit(&mut self, requests: &mut Vec<Box<Request>>) {
        if self.waiting.is_empty() && !self.shared.limited.load(Ordering::Acquire) {
            self.inner.submit(requests);
            return;
        }
        let now = self.now();
        self.waiting.extend(requests.drain(..).map(|request| (now, request)));
        self.advance(now);
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        if !self.waiting.is_empty() {
            self.advance(self.now());
        }
        self.inner.poll(done);
    }

    fn event(&self) -> Option<RawFd> {
        Some(self.event.as_raw_fd())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
