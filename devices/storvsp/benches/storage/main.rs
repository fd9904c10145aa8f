//! Benchmark of the storage path: requests from a guest's ring to a RAM disk and back, next to the
//! lower bound of the machine.
//!
//! `cargo xtask bench storage --json FILE` prints a table. It runs `cargo bench -p synthvm-storvsp
//! --bench storage [-- --json FILE] [--quick]`.
//!
//! | module | measures |
//! |---|---|
//! | `path` | the whole path in one thread: packets, ring, SCSI, data, completions, the signal |
//! | `scaling` | `path` with more disks, LUNs and channels |
//! | `instructions` | the host's part of `path`, counted by callgrind: exact |
//! | `threads` | a guest's thread and a worker's thread: the cost of sleeping and waking |

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
mod limits;
mod machine;
#[path = "../../../../vmbus/loopback/benches/core/number.rs"]
mod number;
mod path;
mod scaling;
mod threads;

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
            eprintln!("bench storage: {error}");
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
    let mut numbers = measure();
    for _ in 1..if quick { 1 } else { PASSES } {
        numbers = numbers.into_iter().zip(measure()).map(|(one, other)| one.best(&other)).collect();
    }
    instructions::measure(&mut numbers)?;
    match json {
        None => numbers.iter().for_each(|number| println!("{number}")),
        Some(file) => std::fs::write(&file, number::json(&numbers))
            .map_err(|error| format!("--json {}: {error}", file.display()))?,
    }
    Ok(())
}

fn measure() -> Vec<Number> {
    let mut numbers = Vec::new();
    path::measure(&mut numbers);
    scaling::measure(&mut numbers);
    threads::measure(&mut numbers);
    numbers
}
