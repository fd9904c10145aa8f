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
mod harness;
mod limits;
mod number;
mod ring;
mod server;
mod threads;
mod views;

use std::process::ExitCode;

use harness::{Bench, Words};
use number::Number;

/// Passes over all numbers.
const PASSES: usize = 5;

fn main() -> ExitCode {
    let bench = Bench { name: "core", usage: "--json FILE and --only PART are", set, measure };
    bench.main()
}

/// The part to measure; all by default.
type Only = Option<String>;

fn set(only: &mut Only, word: &str, words: &mut Words) -> Result<bool, String> {
    let known = word == "--only";
    if known {
        *only = Some(harness::value(word, words)?);
    }
    Ok(known)
}

fn measure(only: &Only) -> Result<Vec<Number>, String> {
    let wanted = |part: &str| only.as_ref().is_none_or(|only| only == part);
    let parts: Vec<_> = PARTS.iter().filter(|(part, _)| wanted(part)).collect();
    if parts.is_empty() {
        return Err("--only names no part: gpadl, views, ring and threads are".to_owned());
    }
    Ok(harness::best(PASSES, || {
        let mut numbers = Vec::new();
        parts.iter().for_each(|(_, measure)| measure(&mut numbers));
        numbers
    }))
}

type Measure = fn(&mut Vec<Number>);

/// The measurements, part by part.
const PARTS: [(&str, Measure); 4] = [
    ("gpadl", gpadl::measure),
    ("views", views::measure),
    ("ring", ring::measure),
    ("threads", threads::measure),
];
