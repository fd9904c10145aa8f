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
#[path = "../../../../vmbus/loopback/benches/core/callgrind.rs"]
mod callgrind;
#[path = "../../../../vmbus/loopback/benches/core/clock.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod clock;
#[path = "../../../../vmbus/loopback/benches/core/counting.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod counting;
#[path = "../../tests/guest/mod.rs"]
mod guest;
mod instructions;
#[path = "../../../../vmbus/loopback/benches/core/limits.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod limits;
mod load;
mod machine;
#[path = "../../../../vmbus/loopback/benches/core/number.rs"]
mod number;
mod path;
#[path = "../../../../vmbus/loopback/benches/core/ring.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod ring;
mod scaling;

use std::path::PathBuf;
use std::process::ExitCode;

use number::Number;

/// Number of passes over all measurements. A disturbance may last longer than one measurement, but
/// hardly for all passes.
const PASSES: usize = 5;

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench network: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut words: impl Iterator<Item = String>) -> Result<(), String> {
    let (mut json, mut wanted, mut quick) = (None, false, false);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--bench" => wanted = true,
            "--quick" => quick = true,
            "--json" => json = Some(PathBuf::from(words.next().ok_or("--json needs a file name")?)),
            instructions::COUNT => return instructions::count(words),
            other => {
                return Err(format!("{other:?} is no option: only --json FILE and --quick are"));
            }
        }
    }
    // `cargo test --all-targets` also starts benchmarks, without this argument, in slow builds.
    if !wanted {
        println!("nothing measured: use `cargo bench`");
        return Ok(());
    }
    let passes = if quick { 1 } else { PASSES };
    // All targets depend on it, so it is measured before the rest, and once more after.
    let bare = path::bare_message(passes);
    let mut numbers = measure(bare);
    for _ in 1..passes {
        let again = measure(bare);
        numbers = numbers.into_iter().zip(again).map(|(one, other)| one.best(&other)).collect();
    }
    numbers.push(Number::new("ring_16_batch16_again_ns", "ns", path::bare_message(passes), bare));
    path::count(&mut numbers);
    instructions::measure(&mut numbers)?;
    match json {
        None => numbers.iter().for_each(|number| println!("{number}")),
        Some(file) => std::fs::write(&file, number::json(&numbers))
            .map_err(|error| format!("--json {}: {error}", file.display()))?,
    }
    Ok(())
}

fn measure(bare: f64) -> Vec<Number> {
    let mut numbers = Vec::new();
    path::measure(bare, &mut numbers);
    scaling::measure(&mut numbers);
    numbers
}
