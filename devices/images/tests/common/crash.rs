//! A writer in a process of its own, which a test kills.
//!
//! The writer is an ignored test named `writer` of the same program. It prints each step that is
//! done and each step that is flushed.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use synthvm_block::Backend;
use synthvm_images::{OpenOptions, open};

use super::flush;

/// The last steps that a writer has reported.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reported {
    pub(crate) done: Option<u64>,
    pub(crate) flushed: Option<u64>,
}

/// Starts a writer of the image at `path` at step `from`, and kills it after `reports` reports.
/// `every`: the number of steps between flushes.
pub(crate) fn run_and_kill(
    path: &Path,
    seed: u64,
    from: u64,
    every: u64,
    reports: u64,
) -> Reported {
    let numbers = [("SEED", seed), ("STEP", from), ("FLUSH", every)];
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer", "--ignored", "--nocapture", "--test-threads=1"])
        .env("IMAGE", path)
        .envs(numbers.map(|(name, number)| (name, number.to_string())))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (mut reported, mut seen) = (Reported::default(), 0);
    while let Some(Ok(line)) = lines.next() {
        // The test harness may have printed text on the same line.
        let Some((_, report)) = line.split_once('@') else { continue };
        match report.split_once(' ').unwrap() {
            ("done", step) => reported.done = Some(step.parse().unwrap()),
            (_, step) => reported.flushed = Some(step.parse().unwrap()),
        }
        seen += 1;
        if seen == reports {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(seen >= reports, "the writer ended by itself after {seen} reports");
    reported
}

/// Returns a number that [`run_and_kill`] has given the writer: `SEED` or `FLUSH`.
pub(crate) fn number(name: &str) -> u64 {
    std::env::var(name).unwrap().parse().unwrap()
}

/// Runs the writer: executes steps until the process is killed. `step` executes one of them and
/// returns whether a flush follows.
pub(crate) fn write_until_killed(mut step: impl FnMut(&Arc<dyn Backend>, u64) -> bool) {
    let path = std::env::var("IMAGE").unwrap();
    let image = open(Path::new(&path), &OpenOptions::default()).unwrap();
    let mut output = std::io::stdout().lock();
    let mut report = |word: &str, number: u64| {
        writeln!(output, "@{word} {number}").unwrap();
        output.flush().unwrap();
    };
    for at in number("STEP").. {
        let flushes = step(&image, at);
        report("done", at);
        if flushes {
            flush(&image);
            report("flushed", at);
        }
    }
}
