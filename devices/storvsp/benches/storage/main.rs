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
#[path = "../../../../vmbus/loopback/benches/bus/harness.rs"]
mod harness;
mod instructions;
mod limits;
mod machine;
#[path = "../../../../vmbus/loopback/benches/bus/number.rs"]
mod number;
mod path;
mod scaling;
mod threads;

use std::process::ExitCode;

use harness::{Bench, Words};
use number::Number;

/// Number of passes over all measurements.
const PASSES: usize = 5;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some(instructions::COUNT) {
        return harness::report("storage", instructions::count(words));
    }
    let usage = "--json FILE and --quick are";
    Bench { name: "storage", usage, set, measure: measure_all }.main()
}

/// One pass is enough.
type Quick = bool;

fn set(quick: &mut Quick, word: &str, _: &mut Words) -> Result<bool, String> {
    *quick |= word == "--quick";
    Ok(word == "--quick")
}

fn measure_all(&quick: &Quick) -> Result<Vec<Number>, String> {
    let mut numbers = harness::best(if quick { 1 } else { PASSES }, measure);
    instructions::measure(&mut numbers)?;
    Ok(numbers)
}

fn measure() -> Vec<Number> {
    let mut numbers = Vec::new();
    path::measure(&mut numbers);
    scaling::measure(&mut numbers);
    threads::measure(&mut numbers);
    numbers
}
