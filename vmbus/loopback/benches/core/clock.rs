//! Best of many short rounds.
//!
//! A round is long enough for the clock and shorter than a scheduler's time slice. Whatever
//! disturbs a round (another process, an interrupt, a cold cache) only makes it longer, so the
//! shortest is nearest to what the code itself costs.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Rounds of each number in one pass.
const ROUNDS: usize = 12;
/// Least length of a round.
const ROUND: Duration = Duration::from_micros(500);
/// No further round begins after so long.
const ENOUGH: Duration = Duration::from_millis(400);
/// The least time a round takes says how many operations it needs; so many tries, as one may be
/// disturbed.
const TRIES: usize = 3;

/// Returns the nanoseconds of one operation. `round(n)` does `n` of them and returns their time.
pub(crate) fn best(mut round: impl FnMut(u64) -> Duration) -> f64 {
    let mut count = 1;
    while (0..TRIES).map(|_| round(count)).min() < Some(ROUND) {
        count *= 2;
    }
    best_round(count, ROUNDS, round)
}

/// As [`best`], but in `rounds` rounds of `count` operations, for those whose first tries say
/// little.
pub(crate) fn best_round(count: u64, rounds: usize, mut round: impl FnMut(u64) -> Duration) -> f64 {
    let begun = Instant::now();
    let mut shortest = round(count);
    for _ in 1..rounds {
        if begun.elapsed() > ENOUGH {
            break;
        }
        shortest = shortest.min(round(count));
    }
    shortest.as_secs_f64() * 1e9 / count as f64
}

/// Nanoseconds of one `operation`.
pub(crate) fn best_of(mut operation: impl FnMut()) -> f64 {
    best(|count| {
        let start = Instant::now();
        for _ in 0..count {
            operation();
        }
        start.elapsed()
    })
}

/// Nanoseconds of one `operation` that must be followed by `undo`, which does not count; nor does
/// reading the clock around it.
pub(crate) fn best_undone<S>(
    state: &mut S,
    mut operation: impl FnMut(&mut S),
    mut undo: impl FnMut(&mut S),
) -> f64 {
    let both = best(|count| {
        let timed = (0..count).map(|_| {
            let start = Instant::now();
            operation(state);
            let spent = start.elapsed();
            undo(state);
            spent
        });
        timed.sum()
    });
    (both - clock()).max(0.0)
}

/// Nanoseconds of reading the clock before and after.
fn clock() -> f64 {
    static CLOCK: OnceLock<f64> = OnceLock::new();
    *CLOCK.get_or_init(|| best(|count| (0..count).map(|_| Instant::now().elapsed()).sum()))
}
