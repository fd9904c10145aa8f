//! The order of tests: different in each run, from a seed that reproduces it.

use std::time::{SystemTime, UNIX_EPOCH};

use guest_report::pattern::mix;

/// Returns a new seed.
pub fn new_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Short enough to type.
    mix(u64::try_from(now.as_nanos()).unwrap_or(0)) % 1_000_000_000
}

/// Shuffles tests. The same seed gives the same order of the same tests.
///
/// Then each long test among the last `tail` changes places with a short one before them: several
/// hosts that take tests from one queue end at about the same time if the last ones are short.
pub fn shuffle<T>(tests: &mut [T], seed: u64, tail: usize, is_long: impl Fn(&T) -> bool) {
    let random = |index: usize| mix(seed.wrapping_add(mix(index as u64)));
    for index in (1..tests.len()).rev() {
        tests.swap(index, usize::try_from(random(index) % (index as u64 + 1)).unwrap_or(0));
    }
    let end = tests.len().saturating_sub(tail);
    for late in end..tests.len() {
        if !is_long(&tests[late]) {
            continue;
        }
        let short: Vec<usize> = (0..end).filter(|early| !is_long(&tests[*early])).collect();
        if let Ok(count @ 1..) = u64::try_from(short.len()) {
            let chosen = usize::try_from(random(tests.len() + late) % count).unwrap_or(0);
            tests.swap(late, short[chosen]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(seed: u64, tail: usize) -> Vec<u32> {
        let mut tests: Vec<u32> = (0..40).collect();
        shuffle(&mut tests, seed, tail, |test| test % 4 == 0);
        tests
    }

    #[test]
    fn test_shuffle_keeps_all_tests_and_repeats_with_its_seed() {
        assert_eq!(order(7, 6), order(7, 6));
        assert_ne!(order(7, 6), order(8, 6));
        let mut all = order(7, 6);
        all.sort_unstable();
        assert!(all.into_iter().eq(0..40));
    }

    #[test]
    fn test_shuffle_puts_any_test_first_but_no_long_one_last() {
        let orders: Vec<Vec<u32>> = (0..1000).map(|seed| order(seed, 6)).collect();
        assert!((0..40).all(|test| orders.iter().any(|order| order[0] == test)));
        assert!(orders.iter().all(|order| order[34..].iter().all(|test| test % 4 != 0)));
        // Long tests follow short ones as well.
        assert!(orders.iter().any(|order| order[20] % 4 == 0));
    }

    #[test]
    fn test_shuffle_of_long_tests_alone_leaves_them_where_they_are() {
        let mut tests = [4, 8];
        shuffle(&mut tests, 1, 6, |_| true);
        tests.sort_unstable();
        assert_eq!(tests, [4, 8]);
        shuffle(&mut Vec::<u32>::new(), 1, 6, |_| true);
    }
}
