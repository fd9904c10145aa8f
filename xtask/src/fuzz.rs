//! `cargo xtask fuzz`: builds the coverage-guided targets of `fuzz/`, runs each for a while, and
//! reports the results.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

mod report;

use crate::number;
use report::{Job, Report, closing_line, table};

/// The targets, and the longest input of each in bytes: long enough for all meanings, short enough
/// to be fast.
const TARGETS: [(&str, u32); 14] = [
    ("host_messages", 2048),
    ("gpadl_assembly", 1024),
    ("ring_reading", 2048),
    ("gpa_direct", 1024),
    ("image_files", 512),
    ("network_protocol", 2048),
    ("msvm_firmware", 1024),
    ("display_protocols", 4096),
    ("rfb", 4096),
    ("web", 4096),
    ("dynamic_memory", 1024),
    ("firmware_platform", 1024),
    ("socket_streams", 1024),
    ("service_protocols", 1024),
];
/// Resident memory of one process, in MiB, above which it counts as unbounded growth. Twice the
/// need of any target.
const MEMORY_MIB: u32 = 512;
/// Size of one allocation, in MiB, above which it counts as proportional to a guest's claim.
const ALLOCATION_MIB: u32 = 64;
/// Seconds for one input above which it counts as a hang. Inputs take microseconds.
const INPUT_SECONDS: u32 = 10;
/// Time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

/// The options of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Corpora stay in target/fuzz-corpus, inputs that failed go to \
        target/fuzz-artifacts. Needs rustup, and a C++ compiler; a nightly toolchain and \
        cargo-fuzz are installed if they are missing. Exit status: 0 if there are no findings, 1 \
        otherwise.")]
pub(crate) struct Arguments {
    /// Seconds to run each target.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = number::<u32>(1..))]
    seconds: u32,
    /// Run only this target.
    #[arg(
        long,
        value_name = "NAME",
        value_parser = clap::builder::PossibleValuesParser::new(TARGETS.map(|(name, _)| name))
    )]
    target: Option<String>,
    /// Number of concurrent processes of a target, which share its corpus. Targets run one after
    /// another.
    #[arg(long, value_name = "J", default_value_t = 1, value_parser = number::<u16>(1..=256))]
    jobs: u16,
    /// Checker of memory accesses: address finds more, none is faster.
    #[arg(long, value_name = "KIND", default_value = "address", value_parser = ["address", "none"])]
    sanitizer: String,
}

pub(crate) fn main(arguments: &Arguments) -> ExitCode {
    match fuzz(arguments) {
        Ok(reports) => {
            print!("\n{}\n{}\n", table(&reports), closing_line(&reports));
            if reports.iter().all(Report::is_clean) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("cargo xtask fuzz: {error}");
            ExitCode::FAILURE
        }
    }
}

fn fuzz(arguments: &Arguments) -> Result<Vec<Report>, String> {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("xtask has no parent folder")?;
    install_tools()?;
    let programs = build(root, arguments)?;
    let wanted = TARGETS
        .iter()
        .filter(|(name, _)| arguments.target.as_deref().is_none_or(|only| only == *name));
    wanted.map(|(name, longest)| run(root, &programs, name, *longest, arguments)).collect()
}

/// Installs the nightly compiler (stable ones have no coverage counters) and cargo-fuzz.
fn install_tools() -> Result<(), String> {
    let is_there = |words: &[&str]| {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if !is_there(&["rustup", "run", "nightly", "rustc", "--version"]) {
        println!(
            "installing the nightly toolchain with rustup: fuzzing needs its coverage counters"
        );
        let words = ["toolchain", "install", "nightly", "--profile", "minimal"];
        must(Command::new("rustup").args(words), "installing the nightly toolchain")?;
    }
    if !is_there(&["cargo", "fuzz", "--version"]) {
        println!("installing cargo-fuzz with cargo install");
        must(
            Command::new("cargo").args(["install", "cargo-fuzz", "--locked"]),
            "installing cargo-fuzz",
        )?;
    }
    Ok(())
}

/// Builds the targets. Returns the folder of the programs.
fn build(root: &Path, arguments: &Arguments) -> Result<PathBuf, String> {
    let target_dir = root.join("target").join(format!("fuzz-{}", arguments.sanitizer));
    println!("building the fuzz targets (the first time takes minutes)");
    let mut command = Command::new("cargo");
    // Traced comparisons help to guess long magic numbers, which do not occur here, and cost nine
    // tenths of the speed.
    command.args([
        "+nightly",
        "fuzz",
        "build",
        "--no-trace-compares",
        "--sanitizer",
        &arguments.sanitizer,
    ]);
    command.arg("--fuzz-dir").arg(root.join("fuzz")).arg("--target-dir").arg(&target_dir);
    command.args(arguments.target.as_deref());
    // The toolchain that runs xtask must not build the targets.
    for name in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC", "RUSTDOC", "CARGO_TARGET_DIR", "RUSTFLAGS"] {
        command.env_remove(name);
    }
    must(command.current_dir(root), "building the fuzz targets (a C++ compiler is needed)")?;
    let release = |path: &Path| path.join("release").is_dir().then(|| path.join("release"));
    // The programs are in a subfolder named after the target triple.
    let entries =
        fs::read_dir(&target_dir).map_err(|e| format!("{}: {e}", target_dir.display()))?;
    let built = entries.flatten().find_map(|entry| release(&entry.path()));
    built.ok_or_else(|| format!("no programs in {}", target_dir.display()))
}

fn must(command: &mut Command, what: &str) -> Result<(), String> {
    let status = command.stdin(Stdio::null()).status().map_err(|e| format!("{what}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{what} failed: {status}")) }
}

/// Runs one target in all its processes.
fn run(
    root: &Path,
    programs: &Path,
    name: &'static str,
    longest: u32,
    arguments: &Arguments,
) -> Result<Report, String> {
    let corpus = root.join("target/fuzz-corpus").join(name);
    let artifacts = root.join("target/fuzz-artifacts");
    for folder in [&corpus, &artifacts] {
        fs::create_dir_all(folder).map_err(|e| format!("making {}: {e}", folder.display()))?;
    }
    println!("\n{name}: {} s, {} at a time", arguments.seconds, arguments.jobs);
    let start = Instant::now();
    let (sender, lines) = channel();
    let mut children = Vec::new();
    for job in 0..usize::from(arguments.jobs) {
        let mut command = Command::new(programs.join(name));
        command.arg(&corpus).arg(root.join("fuzz/seeds").join(name));
        command.arg(format!("-max_total_time={}", arguments.seconds));
        command.arg(format!("-max_len={longest}"));
        command
            .arg(format!("-timeout={INPUT_SECONDS}"))
            .arg(format!("-report_slow_units={INPUT_SECONDS}"));
        command
            .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
            .arg(format!("-malloc_limit_mb={ALLOCATION_MIB}"));
        command.arg(format!("-artifact_prefix={}/{name}-", artifacts.display()));
        command.args(["-print_final_stats=1", "-reload=1"]);
        // The sanitizer's quarantine of freed memory must not look like growth. Long stacks of each
        // allocation are for replays.
        command.env("ASAN_OPTIONS", "quarantine_size_mb=32:malloc_context_size=2");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| format!("starting {name}: {e}"))?;
        let log = artifacts.join(format!("{name}-{job}.log"));
        let log = fs::File::create(&log).map_err(|e| format!("writing {}: {e}", log.display()))?;
        follow(job, &mut child, log, sender.clone());
        children.push(child);
    }
    drop(sender);

    let mut jobs = vec![Job::default(); children.len()];
    let mut shown = Instant::now();
    loop {
        match lines.recv_timeout(PROGRESS.saturating_sub(shown.elapsed())) {
            Ok((job, line)) => jobs[job].read(&line),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if shown.elapsed() >= PROGRESS {
            shown = Instant::now();
            println!("{}", Report::new(name, &jobs, start.elapsed()).progress());
        }
    }
    for (job, child) in jobs.iter_mut().zip(&mut children) {
        let status = child.wait().map_err(|e| format!("waiting for {name}: {e}"))?;
        job.ended(status.success(), &status.to_string());
    }
    let report = Report::new(name, &jobs, start.elapsed());
    for finding in report.findings() {
        println!("{name}: FOUND {finding}");
    }
    Ok(report)
}

/// Reads the output of a process, writes it to `log`, and sends it on.
fn follow(job: usize, child: &mut Child, mut log: fs::File, sender: Sender<(usize, String)>) {
    let Some(pipe) = child.stderr.take() else { return };
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(io::Result::ok) {
            // A full disk must not stop the reading.
            let _ = log.write_all(&line).and_then(|()| log.write_all(b"\n"));
            if sender.send((job, String::from_utf8_lossy(&line).into_owned())).is_err() {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_every_target_of_the_fuzz_crate_can_be_run() {
        let manifest = include_str!("../../fuzz/Cargo.toml");
        let mut in_manifest: Vec<&str> = manifest
            .split("[[bin]]")
            .skip(1)
            .filter_map(|bin| bin.split_once("name = \"")?.1.split('"').next())
            .collect();
        let mut known = TARGETS.map(|(name, _)| name).to_vec();
        in_manifest.sort_unstable();
        known.sort_unstable();
        assert_eq!(in_manifest, known);
    }
}
