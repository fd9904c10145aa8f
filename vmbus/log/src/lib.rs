//! Limits the rate of log lines that a guest can cause.
//!
//! A guest may provoke a warning as often as it can make an exit. Each kind of line therefore has a
//! [`LogRateLimiter`] of its own, which counts the lines that it leaves out.
//!
//! Feature `testing`: `testing::expect_limited`, with which a test shows that a line is limited.

#[cfg(feature = "testing")]
pub mod testing;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most lines of one kind in one second.
const LINES: u32 = 10;

/// Lets through 10 lines a second and counts the rest.
#[derive(Debug, Default)]
pub struct LogRateLimiter {
    window: Mutex<Option<Window>>,
}

#[derive(Debug)]
struct Window {
    start: Instant,
    lines: u32,
    suppressed: u64,
}

impl LogRateLimiter {
    /// Calls `line` with the number of lines that were left out before it, unless this second has
    /// had its lines.
    pub fn log(&self, line: impl FnOnce(u64)) {
        if let Some(suppressed) = self.admit(Instant::now()) {
            line(suppressed);
        }
    }

    fn admit(&self, now: Instant) -> Option<u64> {
        let mut guard = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let window = guard.get_or_insert(Window { start: now, lines: 0, suppressed: 0 });
        if now.duration_since(window.start) >= Duration::from_secs(1) {
            window.start = now;
            window.lines = 0;
        }
        if window.lines >= LINES {
            window.suppressed = window.suppressed.saturating_add(1);
            return None;
        }
        window.lines = window.lines.saturating_add(1);
        Some(std::mem::take(&mut window.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_limiter_over_its_rate_counts_what_it_left_out() {
        let limiter = LogRateLimiter::default();
        let start = Instant::now();
        for _ in 0..LINES {
            assert_eq!(limiter.admit(start), Some(0));
        }
        for _ in 0..5 {
            assert_eq!(limiter.admit(start), None);
        }
        assert_eq!(limiter.admit(start + Duration::from_secs(1)), Some(5));
    }
}
