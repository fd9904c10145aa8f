//! The zero-copy core in numbers: GPADLs through the whole server, views, and rings, each with a
//! physical limit that is measured in the same run.
//!
//! `cargo xtask bench core --json FILE` prints a table. It runs `cargo bench -p vmbus-loopback
//! --bench core [-- [--json FILE] [--only PART]]`.
//!
//! Every number is the best of many short rounds ([`clock`]) in several passes over all numbers, so
//! other load on the machine disturbs little. Limits are measured in the same way. The bench runs
//! in one process and takes seconds. For distributions and history there are criterion's benches in
//! `vmbus-host` and `vmbus-ring`.

mod clock;
mod counting;
mod gpadl;
mod limits;
mod number;
mod ring;
mod threads;
mod views;

use std::path::PathBuf;
use std::process::ExitCode;

use number::Number;

/// Passes over all numbers. A disturbance that lasts longer than one number takes rarely lasts for
/// all passes.
const PASSES: usize = 5;

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench core: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut words: impl Iterator<Item = String>) -> Result<(), String> {
    let (mut json, mut only, mut wanted) = (None, None, false);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--bench" => wanted = true,
            "--json" => json = Some(PathBuf::from(words.next().ok_or("--json needs a file name")?)),
            "--only" => {
                only =
                    Some(words.next().ok_or("--only needs a part: gpadl, views, ring or threads")?);
            }
            other => {
                return Err(format!(
                    "{other:?} is no option: only --json FILE and --only PART are"
                ));
            }
        }
    }
    // `cargo test --all-targets` starts benches too, without this word, from slow builds.
    if !wanted {
        println!("nothing measured: use `cargo bench`");
        return Ok(());
    }
    let mut numbers = measure(only.as_deref());
    if numbers.is_empty() {
        return Err("--only names no part: gpadl, views, ring and threads are".to_owned());
    }
    for _ in 1..PASSES {
        numbers = numbers
            .into_iter()
            .zip(measure(only.as_deref()))
            .map(|(one, other)| one.best(&other))
            .collect();
    }
    match json {
        None => numbers.iter().for_each(|number| println!("{number}")),
        Some(file) => std::fs::write(&file, number::json(&numbers))
            .map_err(|error| format!("--json {}: {error}", file.display()))?,
    }
    Ok(())
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
