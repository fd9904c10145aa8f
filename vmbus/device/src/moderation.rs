//! Interrupt moderation: how long to delay the interrupt for replies to a guest.
//!
//! Replies are in the ring immediately; only the interrupt is delayed. An interrupt and the
//! doorbell that answers it cost a guest two exits. A fast device completes a request in less time
//! than that. Host and guest then pass each other one request at a time although dozens wait, as
//! the guest is interrupted too often to send the next ones. After a short delay one interrupt
//! serves many replies. But a guest without other work loses that time, so no fixed window is
//! right.
//!
//! So a worker makes trials, as adaptive interrupt moderation of network cards does (Linux
//! `lib/dim`): it measures the rate of replies without a delay, then with the longest window. If
//! that pays, it tries a shorter window now and then, and the longest again. (Growing step by step
//! would end at the first step: a window in which no second request comes changes nothing.) A trial
//! that does not pay is undone immediately and repeated ever more rarely. A guest that sends one
//! request at a time is never delayed.
//!
//! Windows follow from the cost of waking a thread on this machine: a shorter sleep is impossible,
//! and on a slow (emulated, overcommitted) machine everything else takes longer in proportion.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::limits::{MAX_MODERATION, MAX_MODERATION_STEPS, MIN_MODERATION};
use crate::wake;

/// Replies in a sample: the rate of fewer varies by more than the effect of a delay.
const SAMPLE: u32 = 256;

/// Factor by which the rate of replies must rise for the longest window to pay. A step down pays if
/// the rate does not fall.
const GAIN: f64 = 1.08;

/// Minimum number of samples between trials. Each trial that does not pay doubles the number, up to
/// [`MANY_SAMPLES`], or [`MANY_SAMPLES_WITHOUT`] while no interrupt is delayed, as trials only cost
/// then.
const FEW_SAMPLES: u32 = 2;
const MANY_SAMPLES: u32 = 32;
const MANY_SAMPLES_WITHOUT: u32 = 256;

/// A pause in the load after which the measurements are forgotten: much longer than a worker sleeps
/// between requests of one load.
const PAUSE: Duration = Duration::from_millis(100);

/// The interrupt moderation of one worker.
#[derive(Debug)]
pub(crate) struct Moderation {
    /// The shortest window; zero if the worker never delays interrupts.
    unit: Duration,
    /// 0: no delay. Otherwise the window is `unit` doubled `level - 1` times.
    level: u32,
    sample: Option<Sample>,
    /// Recent rate in replies a second, without the trials that did not pay.
    base: Option<f64>,
    /// The level to return to if the present trial does not pay.
    trial: Option<u32>,
    /// The next trial is a step down, else the longest window.
    down: bool,
    /// Number of samples until the next trial.
    rest: u32,
    last_rest: u32,
}

/// The replies since a point in time.
#[derive(Clone, Copy, Debug)]
struct Sample {
    since: Instant,
    completions: u32,
    /// More than one request was in flight at a time.
    deep: bool,
}

impl Moderation {
    /// Returns the state of a worker. It delays no interrupt unless `wanted`.
    pub(crate) fn new(wanted: bool) -> Self {
        static UNIT: OnceLock<Duration> = OnceLock::new();
        let measure = || wake::measure().clamp(MIN_MODERATION, MAX_MODERATION);
        Self::with_unit(if wanted { *UNIT.get_or_init(measure) } else { Duration::ZERO })
    }

    fn with_unit(unit: Duration) -> Self {
        let last_rest = FEW_SAMPLES;
        Self {
            unit,
            level: 0,
            sample: None,
            base: None,
            trial: None,
            down: false,
            // The first trial begins with the second sample.
            rest: 0,
            last_rest,
        }
    }

    /// Returns the delay of an interrupt now. `None` for no delay.
    #[inline]
    pub(crate) fn window(&self) -> Option<Duration> {
        (self.level != 0).then(|| self.unit * (1 << (self.level - 1)))
    }

    /// Records that `completions` replies were written to the ring, with `more` requests in flight.
    #[inline]
    pub(crate) fn delivered(&mut self, completions: usize, more: usize) {
        if !self.unit.is_zero() && completions != 0 {
            self.count(u32::try_from(completions).unwrap_or(u32::MAX), more, Instant::now);
        }
    }

    fn count(&mut self, completions: u32, more: usize, now: impl Fn() -> Instant) {
        let Some(sample) = &mut self.sample else {
            // The requests of these replies began before the sample.
            self.sample = Some(Sample { since: now(), completions: 0, deep: false });
            return;
        };
        sample.completions = sample.completions.saturating_add(completions);
        sample.deep |= completions > 1 || more != 0;
        let full = sample.completions >= SAMPLE;
        if !full && self.trial.is_none() {
            return;
        }
        let Sample { since, completions, deep } = *sample;
        let seconds = now().duration_since(since).as_secs_f64();
        // A trial that takes longer than the earlier samples has failed, with any number of
        // replies.
        let hopeless = self.base.is_some_and(|base| seconds > f64::from(SAMPLE) / base);
        if !full && !hopeless {
            return;
        }
        self.sample = None;
        if !deep {
            self.forget();
        } else if seconds > 0.0 {
            self.judge(f64::from(completions) / seconds);
        }
    }

    /// Records that the worker slept for `time`.
    pub(crate) fn slept(&mut self, time: Duration) {
        if !self.unit.is_zero() && time > PAUSE {
            self.forget();
        }
    }

    fn forget(&mut self) {
        *self = Self::with_unit(self.unit);
    }

    /// Evaluates a sample of `rate` replies a second.
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
                let most = if back == 0 { MANY_SAMPLES_WITHOUT } else { MANY_SAMPLES };
                self.last_rest = (self.last_rest * 2).min(most);
                self.rest = self.last_rest;
                return;
            }
            self.down = true;
            self.last_rest = FEW_SAMPLES;
            self.rest = FEW_SAMPLES;
            self.base = Some(if stepped_down { base.midpoint(rate) } else { rate });
            return;
        }
        // A disturbance of one sample counts for half.
        self.base = Some(base.midpoint(rate));
        if self.rest != 0 {
            self.rest -= 1;
            return;
        }
        self.trial = Some(self.level);
        let down = self.level == MAX_MODERATION_STEPS || self.level != 0 && self.down;
        self.level = if down { self.level - 1 } else { MAX_MODERATION_STEPS };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: Duration = Duration::from_micros(10);

    /// Runs samples of a load whose rate depends on the level.
    fn run(moderation: &mut Moderation, samples: u32, rate: impl Fn(u32) -> f64) -> Vec<u32> {
        (0..samples)
            .map(|_| {
                moderation.judge(rate(moderation.level));
                moderation.level
            })
            .collect()
    }

    /// Returns the level without the trial in progress.
    fn settled(moderation: &Moderation) -> u32 {
        moderation.trial.unwrap_or(moderation.level)
    }

    #[test]
    fn test_moderation_finds_the_shortest_time_that_loses_nothing_and_stays_there() {
        for enough in 1..=MAX_MODERATION_STEPS {
            let mut moderation = Moderation::with_unit(UNIT);
            // Nothing changes below; above, it does not get better.
            let rate = |level: u32| if level >= enough { 2000.0 } else { 1000.0 };
            run(&mut moderation, 60, rate);
            let levels = run(&mut moderation, 400, rate);
            let there = levels.iter().filter(|level| **level == enough).count();
            assert!(there > 370, "enough {enough}: {there} of 400: {levels:?}");
        }
    }

    #[test]
    fn test_moderation_goes_up_again_when_a_longer_time_has_come_to_pay() {
        let mut moderation = Moderation::with_unit(UNIT);
        run(&mut moderation, 200, |level| if level >= 2 { 2000.0 } else { 1000.0 });
        assert_eq!(settled(&moderation), 2);
        let levels = run(&mut moderation, 200, |level| if level >= 4 { 2000.0 } else { 1000.0 });
        assert_eq!(settled(&moderation), 4, "{levels:?}");
    }

    #[test]
    fn test_moderation_holds_nothing_back_where_that_only_costs() {
        let mut moderation = Moderation::with_unit(UNIT);
        let levels = run(&mut moderation, 1000, |level| 1000.0 / f64::from(level + 1));
        let there = levels.iter().filter(|level| **level == 0).count();
        assert!(there > 980, "{there} of 1000");
    }

    #[test]
    fn test_moderation_comes_down_when_a_shorter_time_does_as_well() {
        let mut moderation = Moderation::with_unit(UNIT);
        run(&mut moderation, 40, |level| 100.0 * f64::from(level + 1));
        assert_eq!(settled(&moderation), MAX_MODERATION_STEPS);
        let levels = run(&mut moderation, 2000, |_| 100.0);
        assert!(levels.iter().filter(|level| **level == 0).count() > 1700, "{levels:?}");
    }

    #[test]
    fn test_trial_that_is_hopeless_ends_before_its_window() {
        let mut moderation = Moderation::with_unit(UNIT);
        let mut now = Instant::now();
        let mut completed_in_trials = 0;
        for _ in 0..SAMPLE * 4 {
            let in_trial = moderation.window().is_some();
            completed_in_trials += u32::from(in_trial) * 2;
            now += if in_trial { UNIT * 100 } else { UNIT };
            moderation.count(2, 3, || now);
        }
        assert!((1..SAMPLE / 4).contains(&completed_in_trials), "{completed_in_trials}");
    }

    #[test]
    fn test_moderation_never_holds_back_one_request_at_a_time() {
        let mut moderation = Moderation::with_unit(UNIT);
        let start = Instant::now();
        for index in 0..10_000 {
            moderation.count(1, 0, || start + Duration::from_micros(index));
            assert_eq!(moderation.window(), None);
        }
    }

    #[test]
    fn test_moderation_holds_back_when_many_are_in_flight_and_it_pays() {
        let mut moderation = Moderation::with_unit(UNIT);
        let mut now = Instant::now();
        for _ in 0..2_000 {
            let each = Duration::from_micros(if moderation.window().is_some() { 5 } else { 20 });
            now += each * 2;
            moderation.count(2, 3, || now);
        }
        assert!(moderation.window().is_some());
    }

    #[test]
    fn test_moderation_forgets_with_a_pause_and_not_before() {
        let mut moderation = Moderation::with_unit(UNIT);
        run(&mut moderation, 40, |level| 100.0 * f64::from(level + 1));
        assert!(moderation.window().is_some());
        moderation.slept(PAUSE);
        assert!(moderation.window().is_some());
        moderation.slept(PAUSE + Duration::from_nanos(1));
        assert_eq!(moderation.window(), None);
    }

    #[test]
    fn test_moderation_that_is_not_wanted_never_holds_back_nor_asks_the_clock() {
        let mut moderation = Moderation::new(false);
        for _ in 0..1000 {
            moderation.delivered(10, 10);
        }
        assert!(moderation.window().is_none() && moderation.sample.is_none());
    }

    #[test]
    fn test_moderation_one_past_the_limits_of_its_unit_is_the_limit() {
        let unit = Moderation::new(true).unit;
        assert!((MIN_MODERATION..=MAX_MODERATION).contains(&unit), "{unit:?}");
    }
}
