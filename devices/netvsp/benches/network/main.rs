//! Benchmark of the network path: frames from a guest's ring to a backend and back, next to a bare
//! message through a ring.
//!
//! `cargo xtask bench network --json FILE` prints a table. It runs `cargo bench -p synthvm-netvsp
//! --bench network [-- --json FILE] [--quick]`.
//!
//! | module | measures |
//! |---|---|
//! | `path` | frames each way in one thread: packets, ring, NVSP, RNDIS, backend, completions |
//! | `scaling` | `path` with more cards, and with more queues of one card |
//! | `instructions` | the host's part of both, counted by callgrind: exact |
//!
//! The backends do what a kernel does without user-space work: one takes every frame, the other
//! has frames whose bytes are in guest memory already, as after `readv`.

mod backend;
#[path = "../../../../vmbus/loopback/benches/bus/callgrind.rs"]
mod callgrind;
#[path = "../../../../vmbus/loopback/benches/bus/clock.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod clock;
#[path = "../../../../vmbus/loopback/benches/bus/counting.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod counting;
#[path = "../../tests/guest/mod.rs"]
mod guest;
mod instructions;
#[path = "../../../../vmbus/loopback/benches/bus/limits.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod limits;
mod load;
mod machine;
#[path = "../../../../vmbus/loopback/benches/bus/number.rs"]
mod number;
mod path;
#[path = "../../../../vmbus/loopback/benches/bus/program.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod program;
#[path = "../../../../vmbus/loopback/benches/bus/ring.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod ring;
mod scaling;

use std::process::ExitCode;

use number::Number;

/// Number of passes over all measurements.
const PASSES: usize = 5;

fn main() -> ExitCode {
    program::main("network", |mut options| {
        if let Some(words) = options.after(instructions::COUNT) {
            return instructions::count(words.into_iter());
        }
        let passes = if options.flag("--quick") { 1 } else { PASSES };
        options.report("only --json FILE and --quick are", || {
            // All targets depend on it, so it is measured before the rest, and once more after.
            let bare = path::bare_message(passes);
            let mut numbers = program::best_of(passes, || measure(bare));
            let again = path::bare_message(passes);
            numbers.push(Number::new("ring_16_batch16_again_ns", "ns", again, bare));
            path::count(&mut numbers);
            instructions::measure(&mut numbers)?;
            Ok(numbers)
        })
    })
}

fn measure(bare: f64) -> Vec<Number> {
    let mut numbers = Vec::new();
    path::measure(bare, &mut numbers);
    scaling::measure(&mut numbers);
    numbers
}
