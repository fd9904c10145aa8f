//! How long to look for more before sleeping.
//!
//! Waking a thread costs tens of microseconds, more than most requests take; looking on costs a processor. So a worker looks on for a
//! while that follows what happens: it grows when more came soon after the worker had gone to sleep, and ends when nothing came for
//! longer than waking costs. A guest that is idle, or asks rarely, costs nothing. KVM decides in the same way how long a halted vCPU spins.
//!
//! Where processors are short it does not help: the guest that the worker waits for may itself wait for this processor. A worker that
//! was interrupted while it looked, or that looked several times in vain, sleeps at once for some time, longer each time. (Yielding would
//! ask more directly, but then the scheduler gives a whole time slice away, and a request that comes meanwhile waits for milliseconds.)
//! With one processor a worker never looks on: what it waits for could not happen meanwhile.

use std::thread;
use std::time::{Duration, Instant};

use super::limits::MAX_POLL;

/// First step up from not looking at all.
const FIRST: Duration = Duration::from_micros(5);

/// Looks between two looks at the clock: about a microsecond.
const LOOKS: u32 = 16;

/// When so much passed between two looks at the clock, somebody else had the processor.
const INTERRUPTED: Duration = Duration::from_micros(10);

/// Times of looking on in vain in a row, after which looking on rests: one more than it takes to grow from nothing to the limit.
const MAX_MISSES: u32 = 6;

/// Most sleeps of one rest.
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
    /// Sleeps of the last rest, less what went well since.
    last_rest: u32,
    /// Times of looking on in vain since the last that was not.
    misses: u32,
}

/// One time of looking on.
#[derive(Debug)]
pub(super) struct Spell {
    until: Instant,
    clock: Instant,
    looks: u32,
}

impl Poller {
    /// Looks on for `limit` at most, and never longer than [`MAX_POLL`].
    pub(super) fn new(limit: Duration) -> Self {
        let alone = thread::available_parallelism().is_ok_and(|processors| processors.get() == 1);
        let limit = if alone { Duration::ZERO } else { limit.min(MAX_POLL) };
        Self { limit, window: Duration::ZERO, idle_since: None, rest: 0, last_rest: 0, misses: 0 }
    }

    /// There is nothing to do. `Some`: look on.
    pub(super) fn begin(&mut self) -> Option<Spell> {
        if self.limit.is_zero() {
            return None;
        }
        let now = Instant::now();
        self.idle_since = Some(now);
        (!self.window.is_zero()).then(|| Spell { until: now + self.window, clock: now, looks: 0 })
    }

    /// Nothing came at this look. False: go to sleep.
    pub(super) fn goes_on(&mut self, spell: &mut Spell) -> bool {
        spell.looks += 1;
        if !spell.looks.is_multiple_of(LOOKS) {
            std::hint::spin_loop();
            return true;
        }
        let now = Instant::now();
        let interrupted = now.duration_since(spell.clock) > INTERRUPTED;
        spell.clock = now;
        if now < spell.until && !interrupted {
            return true;
        }
        self.misses += 1;
        if interrupted || self.misses == MAX_MISSES {
            self.rest();
        }
        false
    }

    /// Something came while looking on.
    pub(super) fn found(&mut self) {
        self.misses = 0;
        self.last_rest = self.last_rest.saturating_sub(1);
    }

    /// The worker slept and was woken.
    pub(super) fn woke(&mut self) {
        if let Some(since) = self.idle_since.take() {
            self.learn(since.elapsed());
        }
    }

    /// Looking on does not help at the moment.
    fn rest(&mut self) {
        self.misses = 0;
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
        Poller { limit, window: Duration::ZERO, idle_since: None, rest: 0, last_rest: 0, misses: 0 }
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
    fn test_poller_rests_longer_each_time_that_looking_on_did_not_help() {
        let mut poller = poller(MAX_POLL);
        let sleeps_without = |poller: &mut Poller| {
            poller.rest();
            (1..).find(|_| {
                poller.learn(SOON);
                !poller.window.is_zero()
            })
        };
        assert_eq!(sleeps_without(&mut poller), Some(2));
        assert_eq!(sleeps_without(&mut poller), Some(3));
        assert_eq!(sleeps_without(&mut poller), Some(5));
        (0..20).for_each(|_| poller.rest());
        assert_eq!(poller.rest, MAX_REST);
        (0..MAX_REST).for_each(|_| poller.found());
        assert_eq!(poller.last_rest, 0);
    }

    #[test]
    fn test_spell_ends_with_its_window_and_several_in_vain_are_a_rest() {
        let mut poller = poller(MAX_POLL);
        poller.window = MAX_POLL;
        for miss in 1..=MAX_MISSES {
            let now = Instant::now();
            let mut spell = Spell { until: now, clock: now, looks: 0 };
            let looks = (1..).find(|_| !poller.goes_on(&mut spell));
            assert_eq!(looks, Some(LOOKS as usize));
            assert!(poller.window.is_zero() || miss < MAX_MISSES);
        }
        assert!(poller.rest >= 1);
    }

    #[test]
    fn test_spell_that_was_interrupted_ends_and_is_a_rest() {
        let mut poller = poller(MAX_POLL);
        poller.window = MAX_POLL;
        let now = Instant::now();
        let (until, clock) = (now + Duration::from_secs(60), now.checked_sub(INTERRUPTED * 2).unwrap());
        let mut spell = Spell { until, clock, looks: LOOKS - 1 };
        assert!(!poller.goes_on(&mut spell));
        assert!(poller.window.is_zero() && poller.rest == 1);
    }
}
