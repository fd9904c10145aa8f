//! How long to hold back the interrupt that tells a guest of completions.
//!
//! Completions lie in the ring at once; only the interrupt waits. An interrupt and the doorbell that answers it cost a guest two exits, a fast
//! medium completes a request in less than that, and then both sides hand each other one request at a time although dozens wait: the guest is
//! interrupted so often that it never gets to send the next ones. Held back for a moment, one interrupt serves many. But a guest that has
//! nothing else to do loses that moment, so no fixed length is right.
//!
//! So a worker tries, as adaptive interrupt moderation of network cards does (Linux `lib/dim`): it counts completions by the time for a while,
//! holds back for the longest time, and counts again; where that paid, it tries a step down now and then, and the longest time again. (Coming up
//! step by step would end at the first: a time in which no second request comes changes nothing.) What does not pay is undone at once and tried
//! ever more rarely. A guest that sends one request at a time is never made to wait: holding back can only lose there.
//!
//! Times follow from what waking a thread costs on this machine: less could not be slept, and on a slow (emulated, overcommitted) machine
//! everything else takes longer in proportion.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::limits::{MAX_PACE, MAX_PACE_STEPS, MIN_PACE};
use super::wake;

/// Completions that are counted before a time is judged: fewer vary by more than what is to be seen.
const WINDOW: u32 = 256;

/// The longest time pays when completions come faster by more than this factor. A step down does when they come no slower.
const GAIN: f64 = 1.08;

/// Windows between trials: doubles with each that did not pay, from the least to the most. The most is greater while nothing is held back, as
/// trials only cost there.
const FEW_WINDOWS: u32 = 2;
const MANY_WINDOWS: u32 = 32;
const MANY_WINDOWS_WITHOUT: u32 = 256;

/// After such a pause in the load, what was learnt before is forgotten. Much longer than a worker sleeps between requests of one load.
const PAUSE: Duration = Duration::from_millis(100);

/// Decides for one worker.
#[derive(Debug)]
pub(super) struct Pacer {
    /// The shortest time of holding back; zero: never at all.
    unit: Duration,
    /// 0: not at all; else `unit` doubled so many times less one.
    level: u32,
    window: Option<Window>,
    /// Completions a second of late, trials that did not pay left out.
    base: Option<f64>,
    /// The level to go back to unless the present one pays.
    trial: Option<u32>,
    /// The next trial is of a step down, else of the longest time.
    down: bool,
    /// Windows to go until the next trial.
    rest: u32,
    last_rest: u32,
}

/// Completions since some time.
#[derive(Clone, Copy, Debug)]
struct Window {
    since: Instant,
    completions: u32,
    /// More than one request was in the worker's hands at a time.
    deep: bool,
}

impl Pacer {
    /// Holds nothing back unless `wanted`.
    pub(super) fn new(wanted: bool) -> Self {
        static UNIT: OnceLock<Duration> = OnceLock::new();
        let measure = || wake::measure().clamp(MIN_PACE, MAX_PACE);
        Self::with_unit(if wanted { *UNIT.get_or_init(measure) } else { Duration::ZERO })
    }

    fn with_unit(unit: Duration) -> Self {
        let last_rest = FEW_WINDOWS;
        Self {
            unit,
            level: 0,
            window: None,
            base: None,
            trial: None,
            down: false,
            rest: last_rest,
            last_rest,
        }
    }

    /// How long to hold back an interrupt now. `None`: not at all.
    pub(super) fn hold(&self) -> Option<Duration> {
        (self.level != 0).then(|| self.unit * (1 << (self.level - 1)))
    }

    /// So many completions were put into the ring; `more` are in flight.
    pub(super) fn delivered(&mut self, completions: usize, more: usize) {
        if !self.unit.is_zero() && completions != 0 {
            self.count(u32::try_from(completions).unwrap_or(u32::MAX), more, Instant::now);
        }
    }

    fn count(&mut self, completions: u32, more: usize, now: impl Fn() -> Instant) {
        let Some(window) = &mut self.window else {
            // These began before the window.
            self.window = Some(Window { since: now(), completions: 0, deep: false });
            return;
        };
        window.completions = window.completions.saturating_add(completions);
        window.deep |= completions > 1 || more != 0;
        let full = window.completions >= WINDOW;
        if !full && self.trial.is_none() {
            return;
        }
        let Window { since, completions, deep } = *window;
        let seconds = now().duration_since(since).as_secs_f64();
        // A trial that takes longer than the windows before has failed, however few have completed.
        let hopeless = self.base.is_some_and(|base| seconds > f64::from(WINDOW) / base);
        if !full && !hopeless {
            return;
        }
        self.window = None;
        if !deep {
            self.forget();
        } else if seconds > 0.0 {
            self.judge(f64::from(completions) / seconds);
        }
    }

    /// The worker slept for so long.
    pub(super) fn slept(&mut self, time: Duration) {
        if !self.unit.is_zero() && time > PAUSE {
            self.forget();
        }
    }

    fn forget(&mut self) {
        *self = Self::with_unit(self.unit);
    }

    /// A window is over, with so many completions a second.
    fn judge(&mut self, rate: f64) {
        let Some(base) = self.base else {
            self.base = Some(rate);
            return;
        };
        if let Some(back) = self.trial.take() {
            let stepped_down = self.level < back;
            if rate < base * if stepped_down { 1.0 } else { GAIN } {
                self.level = back;
                self.down = !stepped_down;
                let most = if back == 0 { MANY_WINDOWS_WITHOUT } else { MANY_WINDOWS };
                self.last_rest = (self.last_rest * 2).min(most);
                self.rest = self.last_rest;
                return;
            }
            self.down = true;
            self.last_rest = FEW_WINDOWS;
            self.rest = FEW_WINDOWS;
            self.base = Some(if stepped_down { base.midpoint(rate) } else { rate });
            return;
        }
        // What disturbed one window is not believed alone.
        self.base = Some(base.midpoint(rate));
        if self.rest != 0 {
            self.rest -= 1;
            return;
        }
        self.trial = Some(self.level);
        let down = self.level == MAX_PACE_STEPS || self.level != 0 && self.down;
        self.level = if down { self.level - 1 } else { MAX_PACE_STEPS };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: Duration = Duration::from_micros(10);

    /// Runs windows of a load whose rate depends on the level.
    fn run(pacer: &mut Pacer, windows: u32, rate: impl Fn(u32) -> f64) -> Vec<u32> {
        (0..windows)
            .map(|_| {
                pacer.judge(rate(pacer.level));
                pacer.level
            })
            .collect()
    }

    #[test]
    fn test_pacer_finds_the_shortest_time_that_loses_nothing_and_stays_there() {
        for enough in 1..=MAX_PACE_STEPS {
            let mut pacer = Pacer::with_unit(UNIT);
            // Nothing changes below; above, it does not get better.
            let rate = |level: u32| if level >= enough { 2000.0 } else { 1000.0 };
            run(&mut pacer, 60, rate);
            let levels = run(&mut pacer, 400, rate);
            let there = levels.iter().filter(|level| **level == enough).count();
            assert!(there > 370, "enough {enough}: {there} of 400: {levels:?}");
        }
    }

    #[test]
    fn test_pacer_goes_up_again_when_a_longer_time_has_come_to_pay() {
        let mut pacer = Pacer::with_unit(UNIT);
        run(&mut pacer, 200, |level| if level >= 2 { 2000.0 } else { 1000.0 });
        assert_eq!(pacer.level, 2);
        let levels = run(&mut pacer, 200, |level| if level >= 4 { 2000.0 } else { 1000.0 });
        assert_eq!(levels.last(), Some(&4), "{levels:?}");
    }

    #[test]
    fn test_pacer_holds_nothing_back_where_that_only_costs() {
        let mut pacer = Pacer::with_unit(UNIT);
        let levels = run(&mut pacer, 1000, |level| 1000.0 / f64::from(level + 1));
        let there = levels.iter().filter(|level| **level == 0).count();
        assert!(there > 980, "{there} of 1000");
    }

    #[test]
    fn test_pacer_comes_down_when_a_shorter_time_does_as_well() {
        let mut pacer = Pacer::with_unit(UNIT);
        run(&mut pacer, 40, |level| 100.0 * f64::from(level + 1));
        assert_eq!(pacer.level, MAX_PACE_STEPS);
        let levels = run(&mut pacer, 2000, |_| 100.0);
        assert!(levels.iter().filter(|level| **level == 0).count() > 1700, "{levels:?}");
    }

    #[test]
    fn test_trial_that_is_hopeless_ends_before_its_window() {
        let mut pacer = Pacer::with_unit(UNIT);
        let mut now = Instant::now();
        let mut completed_in_trials = 0;
        for _ in 0..WINDOW * 4 {
            let in_trial = pacer.hold().is_some();
            completed_in_trials += u32::from(in_trial) * 2;
            now += if in_trial { UNIT * 100 } else { UNIT };
            pacer.count(2, 3, || now);
        }
        assert!((1..WINDOW / 4).contains(&completed_in_trials), "{completed_in_trials}");
    }

    #[test]
    fn test_pacer_never_holds_back_one_request_at_a_time() {
        let mut pacer = Pacer::with_unit(UNIT);
        let start = Instant::now();
        for index in 0..10_000 {
            pacer.count(1, 0, || start + Duration::from_micros(index));
            assert_eq!(pacer.hold(), None);
        }
    }

    #[test]
    fn test_pacer_holds_back_when_many_are_in_flight_and_it_pays() {
        let mut pacer = Pacer::with_unit(UNIT);
        let mut now = Instant::now();
        for _ in 0..2_000 {
            let each = Duration::from_micros(if pacer.hold().is_some() { 5 } else { 20 });
            now += each * 2;
            pacer.count(2, 3, || now);
        }
        assert!(pacer.hold().is_some());
    }

    #[test]
    fn test_pacer_forgets_with_a_pause_and_not_before() {
        let mut pacer = Pacer::with_unit(UNIT);
        run(&mut pacer, 40, |level| 100.0 * f64::from(level + 1));
        assert!(pacer.hold().is_some());
        pacer.slept(PAUSE);
        assert!(pacer.hold().is_some());
        pacer.slept(PAUSE + Duration::from_nanos(1));
        assert_eq!(pacer.hold(), None);
    }

    #[test]
    fn test_pacer_that_is_not_wanted_never_holds_back_nor_asks_the_clock() {
        let mut pacer = Pacer::new(false);
        for _ in 0..1000 {
            pacer.delivered(10, 10);
        }
        assert!(pacer.hold().is_none() && pacer.window.is_none());
    }

    #[test]
    fn test_pacer_one_past_the_limits_of_its_unit_is_the_limit() {
        let unit = Pacer::new(true).unit;
        assert!((MIN_PACE..=MAX_PACE).contains(&unit), "{unit:?}");
    }
}
