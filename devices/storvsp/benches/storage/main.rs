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
#[path = "../../../block/benches/raw/direction.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod direction;
#[path = "../../tests/guest/mod.rs"]
mod guest;
mod instructions;
mod limits;
mod machine;
#[path = "../../../../vmbus/loopback/benches/bus/number.rs"]
mod number;
mod path;
#[path = "../../../../vmbus/loopback/benches/bus/program.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod program;
mod scaling;
mod threads;

use std::process::ExitCode;

use number::Number;

/// Number of passes over all measurements.
const PASSES: usize = 5;

fn main() -> ExitCode {
    program::main("storage", |mut options| {
        if let Some(words) = options.after(instructions::COUNT) {
            return instructions::count(words.into_iter());
        }
        let passes = if options.flag("--quick") { 1 } else { PASSES };
        options.report("only --json FILE and --quick are", || {
            let mut numbers = program::best_of(passes, measure);
            instructions::measure(&mut numbers)?;
            Ok(numbers)
        })
    })
}

fn measure() -> Vec<Number> {
    let mut numbers = Vec::new();
    path::measure(&mut numbers);
    scaling::measure(&mut numbers);
    threads::measure(&mut numbers);
    numbers
}
