//! The watchdog (spec firmware-windows section A5.2).

use std::time::Duration;

use bitflags::bitflags;

/// Seconds of a count.
pub(super) const RESOLUTION_SECONDS: u32 = 1;
/// The count after a reset.
pub const DEFAULT_COUNT: u32 = 120;

bitflags! {
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    struct Config: u32 {
        const CONFIGURED = 1;
        const ENABLED = 1 << 1;
        /// Kept for the guest. An expiry resets the machine, so a second never follows.
        const ONE_SHOT = 1 << 4;
        /// The last boot ended by an expiry. Writing 1 clears it.
        const EXPIRED = 1 << 8;
    }
}

/// A countdown that resets the machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watchdog {
    config: Config,
    count: u32,
    deadline: Option<Duration>,
}

impl Default for Watchdog {
    fn default() -> Watchdog {
        Watchdog { config: Config::empty(), count: DEFAULT_COUNT, deadline: None }
    }
}

impl Watchdog {
    /// Stops the countdown. That the last boot expired remains.
    pub(super) fn reset(&mut self) {
        let expired = self.config & Config::EXPIRED;
        *self = Watchdog { config: expired, ..Watchdog::default() };
    }

    pub(super) fn config(&self) -> u32 {
        self.config.bits()
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Starts or stops the countdown.
    pub(super) fn set_config(&mut self, value: u32, now: Duration) {
        let value = Config::from_bits_truncate(value);
        let expired = self.config & Config::EXPIRED & !value;
        self.config = value & !Config::EXPIRED | expired;
        self.restart(now);
    }

    /// Sets the count, and starts again from it if the countdown runs.
    pub(super) fn set_count(&mut self, value: u32, now: Duration) {
        self.count = value;
        self.restart(now);
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// Returns whether the countdown has ended by `now`, and stops it then.
    pub(super) fn expire(&mut self, now: Duration) -> bool {
        let expired = self.deadline.is_some_and(|deadline| deadline <= now);
        if expired {
            self.deadline = None;
            self.config = self.config & !Config::ENABLED | Config::EXPIRED;
        }
        expired
    }

    fn restart(&mut self, now: Duration) {
        // A count of 0 would reset the machine in the middle of the access.
        let seconds = u64::from(self.count.max(1)) * u64::from(RESOLUTION_SECONDS);
        let runs = self.config.contains(Config::CONFIGURED | Config::ENABLED);
        self.deadline = runs.then(|| now + Duration::from_secs(seconds));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u32 = 0x13;
    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn test_watchdog_that_is_served_does_not_expire() {
        let mut watchdog = Watchdog::default();
        assert_eq!(watchdog.count(), 120);
        watchdog.set_config(START, at(10));
        assert_eq!(watchdog.deadline(), Some(at(130)));
        assert!(!watchdog.expire(at(129)));
        watchdog.set_count(60, at(129));
        assert_eq!(watchdog.deadline(), Some(at(189)));
        watchdog.set_config(0, at(188));
        assert!(!watchdog.expire(at(1000)));
    }

    #[test]
    fn test_watchdog_expired_is_reported_until_it_is_cleared() {
        let mut watchdog = Watchdog::default();
        watchdog.set_config(START, at(0));
        assert!(watchdog.expire(at(120)));
        assert!(!watchdog.expire(at(121)), "once");
        watchdog.reset();
        assert_eq!(watchdog.config(), 0x100);
        watchdog.set_config(START, at(200));
        assert_eq!(watchdog.config(), 0x113);
        watchdog.set_config(START | 0x100, at(200));
        assert_eq!(watchdog.config(), START);
    }

    #[test]
    fn test_watchdog_count_of_any_size_gives_a_later_deadline() {
        let mut watchdog = Watchdog::default();
        watchdog.set_config(u32::MAX, at(5));
        for count in [0, 1, u32::MAX] {
            watchdog.set_count(count, at(5));
            assert!(watchdog.deadline().unwrap() > at(5));
        }
    }
}
