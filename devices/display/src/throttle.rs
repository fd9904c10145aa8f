//! Limits failed log-ins.

use std::time::{Duration, Instant};

/// Failed log-ins in a row after which all log-ins are refused for a time.
pub(crate) const MAX_FAILURES: u32 = 5;

/// The time for which log-ins are refused first. Each further failure doubles it.
const FIRST_LOCK: Duration = Duration::from_secs(10);

/// The longest time for which log-ins are refused.
const LONGEST_LOCK: Duration = Duration::from_secs(320);

/// Failed log-ins in a row. All viewers come from this computer, so their addresses say nothing.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    failures: u32,
    locked_until: Option<Instant>,
}

impl Throttle {
    /// Returns the time for which log-ins are refused. `None`: they are not.
    pub(crate) fn locked_for(&self, now: Instant) -> Option<Duration> {
        let left = self.locked_until?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// Notes a log-in.
    pub(crate) fn note(&mut self, is_right: bool, now: Instant) {
        if is_right {
            *self = Self::default();
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if let Some(doublings) = self.failures.checked_sub(MAX_FAILURES) {
            let lock = FIRST_LOCK * 2_u32.pow(doublings.min(5));
            self.locked_until = now.checked_add(lock.min(LONGEST_LOCK));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_throttle_after_five_failures_refuses_for_a_time_that_doubles() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        for _ in 1..MAX_FAILURES {
            throttle.note(false, start);
            assert_eq!(throttle.locked_for(start), None);
        }
        throttle.note(false, start);
        assert_eq!(throttle.locked_for(start), Some(FIRST_LOCK));
        let later = start + FIRST_LOCK;
        assert_eq!(throttle.locked_for(later), None);
        throttle.note(false, later);
        assert_eq!(throttle.locked_for(later), Some(FIRST_LOCK * 2));
        for _ in 0..100 {
            throttle.note(false, later);
        }
        assert_eq!(throttle.locked_for(later), Some(LONGEST_LOCK));
    }

    #[test]
    fn test_throttle_right_log_in_forgets_failures() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for _ in 1..MAX_FAILURES {
            throttle.note(false, now);
        }
        throttle.note(true, now);
        throttle.note(false, now);
        assert_eq!(throttle.locked_for(now), None);
    }
}
