//! The zero-copy core in numbers: GPADLs through the whole server, views, and rings, each with a
//! physical limit that is measured in the same run.
//!
//! `cargo xtask bench core --json FILE` prints a table. It runs `cargo bench -p vmbus-loopback
//! --bench core [-- [--json FILE] [--only PART]]`.
//!
//! Every number is the best of many short rounds ([`clock`]) in several passes over all numbers, so
//! other load on the machine disturbs little. Limits are measured in the same way. The bench runs
//! in one process and takes seconds. For distributions and history there are criterion's benches
//! `gpadl` of this crate and `ring` of `vmbus-ring`.

mod clock;
mod counting;
mod gpadl;
mod limits;
mod number;
#[allow(dead_code, reason = "not all of it is needed here")]
mod program;
mod ring;
mod server;
mod threads;
mod views;

use std::process::ExitCode;

use number::Number;

/// Passes over all numbers.
const PASSES: usize = 5;

fn main() -> ExitCode {
    program::main("core", |mut options| {
        let only = options.value("--only")?;
        options.report("only --json FILE and --only PART are", || {
            let numbers = program::best_of(PASSES, || measure(only.as_deref()));
            if numbers.is_empty() {
                return Err("--only names no part: gpadl, views, ring and threads are".to_owned());
            }
            Ok(numbers)
        })
    })
}

type Measure = fn(&mut Vec<Number>);

/// The measurements, part by part.
const PARTS: [(&str, Measure); 4] = [
    ("gpadl", gpadl::measure),
    ("views", views::measure),
    ("ring", ring::measure),
    ("threads", threads::measure),
];

fn measure(only: Option<&str>) -> Vec<Number> {
    let mut numbers = Vec::new();
    for (_, measure) in PARTS.iter().filter(|(part, _)| only.is_none_or(|only| only == *part)) {
        measure(&mut numbers);
    }
    numbers
}
