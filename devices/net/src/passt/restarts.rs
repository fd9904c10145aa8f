//! The times at which a child that has ended is started again.

use std::time::{Duration, Instant};

/// The delay after the second start in a row, and the longest. It doubles in between.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(64);

/// A child that ran for so long did not end because of its options.
const LONG_LIFE: Duration = Duration::from_secs(60);

/// Starts of a child. One that ends shortly after its start is started later and later, as it may
/// end each time: its options are wrong, or a port is in use.
#[derive(Debug)]
pub(super) struct Restarts {
    last: Instant,
    delay: Duration,
}

impl Restarts {
    /// Returns the times after the first start, at `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self { last: now, delay: Duration::ZERO }
    }

    /// Notes a start at `now` and returns true, or returns false if it is too early.
    pub(super) fn may_start(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.last);
        if since < self.delay {
            return false;
        }
        self.delay = match since >= self.delay + LONG_LIFE {
            true => FIRST,
            false => (self.delay * 2).clamp(FIRST, LONGEST),
        };
        self.last = now;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_child_that_ends_again_and_again_is_started_less_and_less_often() {
        let begin = Instant::now();
        let mut restarts = Restarts::new(begin);
        let starts: Vec<u64> = (0..200)
            .filter(|second| restarts.may_start(begin + Duration::from_secs(*second)))
            .collect();
        assert_eq!(starts, [0, 1, 3, 7, 15, 31, 63, 127, 191]);
        let later = begin + Duration::from_secs(1000);
        assert!(restarts.may_start(later), "after a long life");
        assert!(!restarts.may_start(later), "twice");
        assert!(restarts.may_start(later + Duration::from_secs(1)));
    }
}
