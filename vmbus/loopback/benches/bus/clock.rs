//! The best time of many short rounds.
//!
//! A round is long enough for the clock and shorter than a scheduler's time slice. A disturbance
//! (another process, an interrupt, a cold cache) only makes a round longer, so the shortest one is
//! nearest to the cost of the code itself.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Rounds of each number in one pass.
const ROUNDS: usize = 12;
/// Least length of a round.
const ROUND: Duration = Duration::from_micros(500);
/// The time after which no further round begins.
const ENOUGH: Duration = Duration::from_millis(400);
/// The tries of a round, as one may be disturbed. The shortest decides whether a round has enough
/// operations.
const TRIES: usize = 3;

/// Returns the nanoseconds of one operation. `round(n)` executes `n` of them and returns their
/// time.
pub(crate) fn best(mut round: impl FnMut(u64) -> Duration) -> f64 {
    let mut count = 1;
    while (0..TRIES).map(|_| round(count)).min() < Some(ROUND) {
        count *= 2;
    }
    best_round(count, ROUNDS, round)
}

/// Returns the nanoseconds of one operation, like [`best`], from `rounds` rounds of `count`
/// operations. It is for operations whose first tries are not representative.
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

/// Returns the nanoseconds of one `operation`.
pub(crate) fn best_of(mut operation: impl FnMut()) -> f64 {
    best(|count| {
        let start = Instant::now();
        for _ in 0..count {
            operation();
        }
        start.elapsed()
    })
}

/// Returns the nanoseconds of one `operation` that must be followed by `undo`. The time of `undo`,
/// and of reading the clock, does not count.
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

/// Returns the nanoseconds of reading the clock before and after.
fn clock() -> f64 {
    static CLOCK: OnceLock<f64> = OnceLock::new();
    *CLOCK.get_or_init(|| best(|count| (0..count).map(|_| Instant::now().elapsed()).sum()))
}
