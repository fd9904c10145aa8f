//! Adaptive busy-poll: whether and how long a worker polls before it sleeps.
//!
//! Waking a thread costs tens of microseconds, more than most requests take; polling costs a
//! processor. So a worker polls for a window that follows the load: the window grows when work came
//! soon after the worker had gone to sleep, and closes when no work came for longer than a wake-up
//! costs. A guest that is idle, or rarely sends requests, costs no CPU time. KVM decides in the
//! same way how long a halted vCPU spins.
//!
//! Polling does not help where processors are short: the guest may itself wait for the polling
//! worker's processor. A worker that was interrupted while it polled, or that polled several
//! windows in vain, suspends polling for a number of sleeps, which grows each time. (Yielding would
//! be more direct, but then the scheduler gives a whole time slice away, and a request that arrives
//! in it waits for milliseconds.) With one processor a worker never polls, as the guest cannot send
//! work while it does.

use std::thread;
use std::time::{Duration, Instant};

use crate::limits::MAX_BUSY_POLL;

/// The first window.
const FIRST: Duration = Duration::from_micros(5);

/// Polls between two reads of the clock: about a microsecond.
const LOOKS: u32 = 16;

/// Minimum time between two reads of the clock that means another thread had the processor.
const INTERRUPTED: Duration = Duration::from_micros(10);

/// Number of consecutive empty poll windows after which polling is suspended: one more than a
/// window needs to grow from zero to the limit.
const MAX_MISSES: u32 = 6;

/// Maximum number of sleeps of one suspension.
const MAX_REST: u32 = 1024;

/// The busy-poll state of one worker.
#[derive(Debug)]
pub(crate) struct BusyPoll {
    /// Maximum window; zero if the worker never polls.
    limit: Duration,
    /// The next window.
    window: Duration,
    /// The time when the last work ended.
    idle_since: Option<Instant>,
    /// Number of sleeps until the window may grow again.
    rest: u32,
    /// Number of sleeps of the last suspension, less one for each later window with work.
    last_rest: u32,
    /// Number of consecutive empty windows.
    misses: u32,
}

/// An open poll window.
#[derive(Debug)]
pub(crate) struct PollWindow {
    until: Instant,
    clock: Instant,
    looks: u32,
}

impl BusyPoll {
    /// Returns a busy-poll state with windows of at most `limit` and [`MAX_BUSY_POLL`].
    pub(crate) fn new(limit: Duration) -> Self {
        let alone = thread::available_parallelism().is_ok_and(|processors| processors.get() == 1);
        let limit = if alone { Duration::ZERO } else { limit.min(MAX_BUSY_POLL) };
        Self { limit, window: Duration::ZERO, idle_since: None, rest: 0, last_rest: 0, misses: 0 }
    }

    /// Begins an idle period. Returns the window to poll in, if any.
    pub(crate) fn begin(&mut self) -> Option<PollWindow> {
        if self.limit.is_zero() {
            return None;
        }
        let now = Instant::now();
        self.idle_since = Some(now);
        (!self.window.is_zero()).then(|| PollWindow {
            until: now + self.window,
            clock: now,
            looks: 0,
        })
    }

    /// Counts an empty poll. Returns false if the worker must go to sleep.
    pub(crate) fn continues(&mut self, open: &mut PollWindow) -> bool {
        open.looks += 1;
        if !open.looks.is_multiple_of(LOOKS) {
            std::hint::spin_loop();
            return true;
        }
        let now = Instant::now();
        let interrupted = now.duration_since(open.clock) > INTERRUPTED;
        open.clock = now;
        if now < open.until && !interrupted {
            return true;
        }
        self.misses += 1;
        if interrupted || self.misses == MAX_MISSES {
            self.rest();
        }
        false
    }

    /// Records that work came within the window.
    pub(crate) fn found(&mut self) {
        self.misses = 0;
        self.last_rest = self.last_rest.saturating_sub(1);
    }

    /// Records a wake-up from sleep.
    pub(crate) fn woke(&mut self) {
        if let Some(since) = self.idle_since.take() {
            self.learn(since.elapsed());
        }
    }

    /// Suspends polling, which does not help at the moment.
    fn rest(&mut self) {
        self.misses = 0;
        self.last_rest = (self.last_rest * 2).clamp(1, MAX_REST);
        self.rest = self.last_rest;
        self.window = Duration::ZERO;
    }

    /// Adapts the window to work that came `idle` after the last work, with the worker asleep.
    fn learn(&mut self, idle: Duration) {
        if self.rest != 0 {
            self.rest -= 1;
        } else if idle <= self.limit {
            self.window = (self.window * 2).clamp(FIRST, self.limit.max(FIRST)).min(self.limit);
        } else {
            self.window = Duration::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_micros(30);
    const LATE: Duration = Duration::from_millis(1);

    fn busy_poll(limit: Duration) -> BusyPoll {
        BusyPoll {
            limit,
            window: Duration::ZERO,
            idle_since: None,
            rest: 0,
            last_rest: 0,
            misses: 0,
        }
    }

    #[test]
    fn test_busy_poll_grows_when_work_comes_soon_and_ends_when_it_does_not() {
        let mut busy_poll = busy_poll(MAX_BUSY_POLL);
        assert!(busy_poll.begin().is_none(), "nothing is known yet");
        let windows: Vec<_> = (0..6)
            .map(|_| {
                busy_poll.learn(SOON);
                busy_poll.window.as_micros()
            })
            .collect();
        assert_eq!(windows, [5, 10, 20, 40, 50, 50]);
        assert!(busy_poll.begin().is_some());
        busy_poll.learn(LATE);
        assert!(busy_poll.window.is_zero() && busy_poll.begin().is_none());
    }

    #[test]
    fn test_busy_poll_with_limit_zero_never_looks_nor_asks_the_clock() {
        let mut busy_poll = busy_poll(Duration::ZERO);
        assert!(busy_poll.begin().is_none());
        assert!(busy_poll.idle_since.is_none());
        busy_poll.woke();
        assert!(busy_poll.begin().is_none());
    }

    #[test]
    fn test_busy_poll_one_past_the_limit_is_the_limit() {
        assert!(BusyPoll::new(MAX_BUSY_POLL + Duration::from_nanos(1)).limit <= MAX_BUSY_POLL);
        let mut small = busy_poll(Duration::from_micros(2));
        small.learn(Duration::from_micros(1));
        assert_eq!(small.window, Duration::from_micros(2));
    }

    #[test]
    fn test_busy_poll_rests_longer_each_time_that_looking_on_did_not_help() {
        let mut busy_poll = busy_poll(MAX_BUSY_POLL);
        let sleeps_without = |busy_poll: &mut BusyPoll| {
            busy_poll.rest();
            (1..).find(|_| {
                busy_poll.learn(SOON);
                !busy_poll.window.is_zero()
            })
        };
        assert_eq!(sleeps_without(&mut busy_poll), Some(2));
        assert_eq!(sleeps_without(&mut busy_poll), Some(3));
        assert_eq!(sleeps_without(&mut busy_poll), Some(5));
        (0..20).for_each(|_| busy_poll.rest());
        assert_eq!(busy_poll.rest, MAX_REST);
        (0..MAX_REST).for_each(|_| busy_poll.found());
        assert_eq!(busy_poll.last_rest, 0);
    }

    #[test]
    fn test_poll_window_ends_with_its_window_and_several_in_vain_are_a_rest() {
        let mut busy_poll = busy_poll(MAX_BUSY_POLL);
        busy_poll.window = MAX_BUSY_POLL;
        for miss in 1..=MAX_MISSES {
            let now = Instant::now();
            let mut open = PollWindow { until: now, clock: now, looks: 0 };
            let looks = (1..).find(|_| !busy_poll.continues(&mut open));
            assert_eq!(looks, Some(LOOKS as usize));
            assert!(busy_poll.window.is_zero() || miss < MAX_MISSES);
        }
        assert!(busy_poll.rest >= 1);
    }

    #[test]
    fn test_poll_window_that_was_interrupted_ends_and_is_a_rest() {
        let mut busy_poll = busy_poll(MAX_BUSY_POLL);
        busy_poll.window = MAX_BUSY_POLL;
        let now = Instant::now();
        let (until, clock) =
            (now + Duration::from_secs(60), now.checked_sub(INTERRUPTED * 2).unwrap());
        let mut open = PollWindow { until, clock, looks: LOOKS - 1 };
        assert!(!busy_poll.continues(&mut open));
        assert!(busy_poll.window.is_zero() && busy_poll.rest == 1);
    }
}
