//! How long to look for more before sleeping.
//!
//! Waking a thread costs tens of microseconds, more than most requests take; looking on costs a processor. So a worker looks on for a
//! while that follows what happens: it grows when more came soon after the worker had gone to sleep, and ends when nothing came for
//! longer than waking costs. A guest that is idle, or asks rarely, costs nothing. KVM decides in the same way how long a halted vCPU spins.
//!
//! Whoever else wants the processor gets it: the worker yields while it looks, and when it notices that somebody had waited it stops
//! looking on for some time, longer each time. With one processor it never looks on: what it waits for could not happen meanwhile.

use std::thread;
use std::time::{Duration, Instant};

use super::limits::MAX_POLL;

/// First step up from not looking at all.
const FIRST: Duration = Duration::from_micros(5);

/// Looks between two yields: about a microsecond.
const LOOKS: u32 = 16;

/// A yield that takes longer than this gave the processor to somebody.
const YIELDED: Duration = Duration::from_micros(5);

/// Most sleeps without looking on after others wanted the processor.
const MAX_REST: u32 = 1024;

/// Decides for one worker.
#[derive(Debug)]
pub(super) struct Poller {
    /// Never longer than this; zero: never at all.
    limit: Duration,
    /// How long to look on the next time.
    window: Duration,
    /// When there was nothing to do any more.
    idle_since: Option<Instant>,
    /// Sleeps to go until the window may grow again.
    rest: u32,
    /// `rest` of the last time that others wanted the processor.
    last_rest: u32,
}

/// One time of looking on.
#[derive(Debug)]
pub(super) struct Spell {
    until: Instant,
    looks: u32,
}

impl Poller {
    /// Looks on for `limit` at most, and never longer than [`MAX_POLL`].
    pub(super) fn new(limit: Duration) -> Self {
        let alone = thread::available_parallelism().is_ok_and(|processors| processors.get() == 1);
        let limit = if alone { Duration::ZERO } else { limit.min(MAX_POLL) };
        Self { limit, window: Duration::ZERO, idle_since: None, rest: 0, last_rest: 0 }
    }

    /// There is nothing to do. `Some`: look on.
    pub(super) fn begin(&mut self) -> Option<Spell> {
        if self.limit.is_zero() {
            return None;
        }
        let now = Instant::now();
        self.idle_since = Some(now);
        (!self.window.is_zero()).then(|| Spell { until: now + self.window, looks: 0 })
    }

    /// Nothing came at this look. False: go to sleep.
    pub(super) fn goes_on(&mut self, spell: &mut Spell) -> bool {
        spell.looks += 1;
        if !spell.looks.is_multiple_of(LOOKS) {
            std::hint::spin_loop();
            return true;
        }
        let before = Instant::now();
        if before >= spell.until {
            return false;
        }
        thread::yield_now();
        let contended = before.elapsed() > YIELDED;
        if contended {
            self.contended();
        }
        !contended
    }

    /// Something came while looking on.
    pub(super) fn found(&mut self) {
        self.last_rest = 0;
    }

    /// The worker slept and was woken.
    pub(super) fn woke(&mut self) {
        if let Some(since) = self.idle_since.take() {
            self.learn(since.elapsed());
        }
    }

    /// Others wanted the processor.
    fn contended(&mut self) {
        self.last_rest = (self.last_rest * 2).clamp(1, MAX_REST);
        self.rest = self.last_rest;
        self.window = Duration::ZERO;
    }

    /// It took `idle` until more came, the worker had gone to sleep before.
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

    fn poller(limit: Duration) -> Poller {
        Poller { limit, window: Duration::ZERO, idle_since: None, rest: 0, last_rest: 0 }
    }

    #[test]
    fn test_poller_grows_when_work_comes_soon_and_ends_when_it_does_not() {
        let mut poller = poller(MAX_POLL);
        assert!(poller.begin().is_none(), "nothing is known yet");
        let windows: Vec<_> = (0..6)
            .map(|_| {
                poller.learn(SOON);
                poller.window.as_micros()
            })
            .collect();
        assert_eq!(windows, [5, 10, 20, 40, 50, 50]);
        assert!(poller.begin().is_some());
        poller.learn(LATE);
        assert!(poller.window.is_zero() && poller.begin().is_none());
    }

    #[test]
    fn test_poller_with_limit_zero_never_looks_nor_asks_the_clock() {
        let mut poller = poller(Duration::ZERO);
        assert!(poller.begin().is_none());
        assert!(poller.idle_since.is_none());
        poller.woke();
        assert!(poller.begin().is_none());
    }

    #[test]
    fn test_poller_one_past_the_limit_is_the_limit() {
        assert!(Poller::new(MAX_POLL + Duration::from_nanos(1)).limit <= MAX_POLL);
        let mut small = poller(Duration::from_micros(2));
        small.learn(Duration::from_micros(1));
        assert_eq!(small.window, Duration::from_micros(2));
    }

    #[test]
    fn test_poller_rests_longer_each_time_that_others_want_the_processor() {
        let mut poller = poller(MAX_POLL);
        let sleeps_without = |poller: &mut Poller| {
            poller.contended();
            (1..).find(|_| {
                poller.learn(SOON);
                !poller.window.is_zero()
            })
        };
        assert_eq!(sleeps_without(&mut poller), Some(2));
        assert_eq!(sleeps_without(&mut poller), Some(3));
        assert_eq!(sleeps_without(&mut poller), Some(5));
        (0..20).for_each(|_| poller.contended());
        assert_eq!(poller.rest, MAX_REST);
        poller.found();
        poller.rest = 0;
        assert_eq!(sleeps_without(&mut poller), Some(2));
    }

    #[test]
    fn test_spell_ends_with_its_window() {
        let mut poller = poller(MAX_POLL);
        let mut spell = Spell { until: Instant::now(), looks: 0 };
        let looks = (1..).find(|_| !poller.goes_on(&mut spell));
        assert_eq!(looks, Some(LOOKS as usize));
    }
}
