//! `cargo xtask test`: runs all tests and prints one closing line.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use guest_images::cache::{Cache, target_dir};
use guest_images::{chromium, gvnc, qemu, swtpm, web_libraries};

use integration_tests::losses::{Record, Statistics};

use crate::number;
use crate::stages::{Phase, Report, Stage, Sums};

/// The options of `cargo xtask test`. By default, all stages run.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Leave out all stages that boot a guest.
    #[arg(long)]
    no_guests: bool,
    /// Run only the real-guest tests.
    #[arg(long, conflicts_with = "no_guests")]
    guests: bool,
    /// Number of runs of the real-guest tests; the losses to the emulator are added up.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = number::<u32>(1..),
        requires = "guests"
    )]
    repeat: u32,
    /// Seed of the order of the real-guest tests, as printed by an earlier run; repeated runs count
    /// up from it.
    #[arg(long, value_name = "N", conflicts_with = "no_guests")]
    seed: Option<u64>,
    /// Append a record of each run of the real-guest tests to this file, as a line of JSON; the
    /// default is target/guest-runs.jsonl.
    #[arg(long, value_name = "FILE", conflicts_with = "no_guests")]
    json: Option<PathBuf>,
    /// Run only real-guest tests whose names contain this text.
    #[arg(value_name = "FILTER", conflicts_with = "no_guests")]
    filters: Vec<String>,
}

impl Arguments {
    /// Returns the file of records.
    fn records(&self) -> PathBuf {
        let file = self.json.clone().unwrap_or_else(Record::default_file);
        // The tests run in another folder.
        std::path::absolute(&file).unwrap_or(file)
    }
}

pub(crate) fn main(arguments: &Arguments) -> ExitCode {
    // The tests of image formats compare them with QEMU's; those of the TPM use swtpm, and those of
    // the display server a VNC client. Those of the browser console use Chromium, and find the
    // page's libraries in the cache.
    let cache = Cache::project();
    let programs = web_libraries::folder(&cache).and_then(|_| {
        let (qemu, swtpm) = (qemu::folder(&cache)?, swtpm::program(&cache)?);
        Ok([qemu, swtpm, gvnc::program(&cache)?, chromium::program(&cache)?])
    });
    let [qemu, swtpm, gvnc, chromium] = match programs {
        Ok(programs) => programs.map(PathBuf::into_os_string),
        Err(error) => {
            eprintln!("cargo xtask test: {error}");
            return ExitCode::FAILURE;
        }
    };
    let earlier = Record::read_all(&arguments.records()).unwrap_or_default();
    let phases = phases(arguments).into_iter().map(|phase| {
        phase
            .with(qemu::FOLDER, &qemu)
            .with(swtpm::VARIABLE, &swtpm)
            .with(gvnc::VARIABLE, &gvnc)
            .with(chromium::VARIABLE, &chromium)
    });
    let reports: Vec<Report> = phases.flat_map(|phase| phase.run()).collect();
    let (text, sums) = summary(&reports);
    if arguments.guests {
        print!("{}", statistics(&arguments.records(), &earlier));
    }
    print!("{text}");
    if sums.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn phases(arguments: &Arguments) -> Vec<Phase> {
    let mut phases = if arguments.guests { Vec::new() } else { vec![without_guests()] };
    if !arguments.no_guests && !arguments.guests {
        // Every stage builds the whole workspace: another choice of packages would build them again
        // with other features.
        let host = ["--workspace", "--test", "test_host"];
        let alone = ["--workspace", "--test", "guest_alone", "--test", "images_alone"];
        phases.push(Phase {
            shown: vec![Stage::new("the test host", &host)],
            beside: vec![Stage::new("guests alone, in the plain emulator", &alone)],
        });
    }
    if !arguments.no_guests {
        phases.extend((0..arguments.repeat).map(|run| Phase::of(real_guests(arguments, run))));
    }
    phases
}

/// Returns the stage of the real-guest tests, for run `run` from 0.
fn real_guests(arguments: &Arguments, run: u32) -> Stage {
    let name = match arguments.repeat {
        1 => "real guests".to_owned(),
        count => format!("real guests, run {} of {count}", run + 1),
    };
    let mut stage = Stage::new(&name, &["--workspace", "--test", "guests", "--"]);
    stage.arguments.extend_from_slice(&arguments.filters);
    stage.arguments.extend(["--json".to_owned(), arguments.records().display().to_string()]);
    if let Some(seed) = arguments.seed {
        stage.arguments.extend(["--seed".to_owned(), seed.wrapping_add(run.into()).to_string()]);
    }
    stage
}

fn without_guests() -> Phase {
    let unit =
        Stage::new("unit, property and in-process tests", &["--workspace", "--no-fail-fast"]);
    // The models try every order of events of the hand-shakes between threads. They have a target
    // folder of their own, because the flag would cause a complete rebuild.
    let models = Stage::new(
        "models of signalling, of views and of message slots",
        &[
            "--package",
            "vmbus-ring",
            "--package",
            "vmbus-gpadl",
            "--package",
            "vmbus-host",
            "--lib",
            "model",
        ],
    );
    let mut beside = vec![
        models.with("RUSTFLAGS", "--cfg loom").with("CARGO_TARGET_DIR", target_dir().join("loom")),
    ];
    beside.extend(sanitized());
    // The fuzz targets replay their seeds. They share code with the host's tests but are outside
    // the workspace.
    let seeds = Stage::new("seeds of the fuzz targets", &["--manifest-path", "fuzz/Cargo.toml"]);
    beside.push(seeds.with("CARGO_TARGET_DIR", target_dir().join("fuzz-seeds")));
    Phase { shown: vec![unit], beside }
}

/// Returns the stages that run the tests of the crate that converts page lists to raw pointers,
/// under AddressSanitizer, and check that it detects an error. The stable compiler has the
/// sanitizer's run-time library, and the flag behind `RUSTC_BOOTSTRAP`, so no other toolchain is
/// needed. The cost is a separate build of this crate.
fn sanitized() -> [Stage; 2] {
    // An explicit target keeps the flag away from build scripts and procedural macros.
    const CRATES: [&str; 4] = ["--target", "x86_64-unknown-linux-gnu", "--package", "vmbus-gpadl"];
    let stage = |name, rest: &[&str]| {
        Stage::new(name, &[&CRATES[..], rest].concat())
            .with("RUSTC_BOOTSTRAP", "1")
            .with("RUSTFLAGS", "-Zsanitizer=address")
            // Leak detection needs ptrace, which containers refuse.
            .with("ASAN_OPTIONS", "detect_leaks=0")
            .with("CARGO_TARGET_DIR", target_dir().join("sanitized"))
    };
    [
        stage("guest memory under AddressSanitizer", &["--lib", "--tests", "--no-fail-fast"]),
        stage(
            "a planted error under AddressSanitizer",
            &["--test", "sanitizer", "--", "--ignored"],
        ),
    ]
}

/// Returns the losses of this command's runs, and of all runs in the file of records.
fn statistics(file: &Path, earlier: &[Record]) -> String {
    let records = match Record::read_all(file) {
        Ok(records) => records,
        Err(error) => return format!("{}: {error}\n", file.display()),
    };
    let now = Statistics::of(records.get(earlier.len()..).unwrap_or_default());
    let all = Statistics::of(&records);
    format!("\nthese runs: {now}\nall runs in {}: {all}\n", file.display())
}

/// Returns the final text and its sums. A stage that did not complete counts as a failure, so that
/// the closing line never hides a problem.
fn summary(reports: &[Report]) -> (String, Sums) {
    let mut text = String::from("\n");
    let mut sums = Sums::default();
    for report in reports.iter().filter(|report| !report.failures.is_empty()) {
        text.push_str(&format!("{}:\n{}\n\n", report.name, report.failures.join("\n")));
    }
    for report in reports {
        sums.passed += report.sums.passed;
        sums.failed += report.sums.failed + u64::from(report.broken.is_some());
        let seconds = report.took.as_secs_f64();
        text.push_str(&format!(
            "{:6.0} s  {:5} passed {:3} failed  {}\n",
            seconds, report.sums.passed, report.sums.failed, report.name
        ));
        if let Some(why) = &report.broken {
            text.push_str(&format!("          did not run to its end: {why}\n"));
        }
    }
    text.push_str(&format!("{} passed, {} failed\n", sums.passed, sums.failed));
    (text, sums)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn report(passed: u64, failed: u64, broken: Option<&str>) -> Report {
        let sums = Sums { passed, failed };
        Report {
            name: "x".to_owned(),
            sums,
            took: Duration::from_secs(1),
            broken: broken.map(str::to_owned),
            failures: Vec::new(),
        }
    }

    #[test]
    fn test_summary_ends_with_one_line_of_sums() {
        let (text, sums) = summary(&[report(3, 0, None), report(4, 1, None)]);
        assert!(text.ends_with("\n7 passed, 1 failed\n"), "{text}");
        assert_eq!(sums, Sums { passed: 7, failed: 1 });
    }

    #[test]
    fn test_summary_shows_the_lines_about_failures_of_each_stage_before_the_sums() {
        let mut failed = report(3, 1, None);
        failed.failures = vec!["failures:".to_owned(), "    b".to_owned()];
        let (text, _) = summary(&[failed, report(4, 0, None)]);
        assert!(text.starts_with("\nx:\nfailures:\n    b\n\n"), "{text}");
        assert!(text.ends_with("\n7 passed, 1 failed\n"), "{text}");
    }

    #[test]
    fn test_summary_of_a_stage_that_did_not_run_is_a_failure() {
        let (text, sums) = summary(&[report(3, 0, None), report(0, 0, Some("no host"))]);
        assert_eq!(sums.failed, 1);
        assert!(text.contains("no host") && text.ends_with("3 passed, 1 failed\n"), "{text}");
    }
}
