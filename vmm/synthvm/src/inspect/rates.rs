//! The rates of counters between two reports.

use std::time::Duration;

/// The time between two reports, for rates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rates {
    elapsed: Option<Duration>,
}

impl Rates {
    /// Returns rates over `elapsed`; they are unknown without an earlier report.
    pub(crate) fn over(elapsed: Option<Duration>) -> Self {
        Rates { elapsed: elapsed.filter(|elapsed| !elapsed.is_zero()) }
    }

    /// Returns whether there is an earlier report.
    pub(crate) fn known(&self) -> bool {
        self.elapsed.is_some()
    }

    /// Returns the rate per second, rounded; `None` if unknown. A counter that has decreased
    /// (another machine uses the same socket) has a rate of 0.
    pub(crate) fn per_second(&self, now: u64, before: u64) -> Option<u64> {
        let elapsed =
            u128::from(u64::try_from(self.elapsed?.as_millis().max(1)).unwrap_or(u64::MAX));
        let risen = u128::from(now.saturating_sub(before)) * 1000;
        u64::try_from((risen + elapsed / 2) / elapsed).ok()
    }
}

/// Formats a count in few characters: 999, 12.3k, 4.0M.
pub(crate) fn short(count: u64) -> String {
    scaled(count, 1000, &["", "k", "M", "G", "T", "P", "E"])
}

/// Formats bytes in few characters: 512, 4.0K, 1.5M (powers of 1024).
pub(crate) fn bytes(count: u64) -> String {
    scaled(count, 1024, &["", "K", "M", "G", "T", "P", "E"])
}

fn scaled(count: u64, step: u64, units: &[&str]) -> String {
    let (mut unit, mut divisor) = (0, 1_u64);
    while count / divisor >= step && unit + 1 < units.len() {
        divisor *= step;
        unit += 1;
    }
    if unit == 0 {
        return count.to_string();
    }
    let tenths = u128::from(count) * 10 / u128::from(divisor);
    format!("{}.{}{}", tenths / 10, tenths % 10, units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_rate_is_per_second_and_rounded() {
        let rates = Rates::over(Some(Duration::from_millis(2000)));
        assert_eq!(rates.per_second(1003, 1000), Some(2));
        assert_eq!(rates.per_second(5, 9), Some(0));
        assert_eq!(Rates::over(None).per_second(5, 0), None);
    }

    #[test]
    fn test_scaled_numbers_are_short_at_every_size() {
        assert_eq!(
            ["0", "999", "1.0k", "12.3k"],
            [0, 999, 1000, 12_345].map(short).each_ref().map(String::as_str)
        );
        assert_eq!(
            ["1023", "1.0K", "1.5M"],
            [1023, 1024, 3 << 19].map(bytes).each_ref().map(String::as_str)
        );
        assert_eq!(short(u64::MAX), "18.4E");
    }
}
