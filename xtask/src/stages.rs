//! Test stages, which run in two lanes, and the sums of their results.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Numbers of passed and failed tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

/// A stage: a command that prints the standard harness's result lines.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) name: String,
    pub(crate) arguments: Vec<String>,
    /// Additions to xtask's environment.
    pub(crate) environment: Vec<(&'static str, OsString)>,
}

/// Stages that run at the same time: those of each lane one after another.
#[derive(Debug, Default)]
pub(crate) struct Phase {
    /// Stages whose output appears as it arrives.
    pub(crate) shown: Vec<Stage>,
    /// Stages beside them, each with its output at its end. One processor is enough for them, and
    /// the others do not use both all the time.
    pub(crate) beside: Vec<Stage>,
}

impl Phase {
    /// Returns a phase of one stage.
    pub(crate) fn of(stage: Stage) -> Phase {
        Phase { shown: vec![stage], beside: Vec::new() }
    }

    /// Adds a variable to the environment of each stage.
    pub(crate) fn with(self, key: &'static str, value: &OsString) -> Phase {
        let add = |stages: Vec<Stage>| {
            stages.into_iter().map(|stage| stage.with(key, value.clone())).collect()
        };
        Phase { shown: add(self.shown), beside: add(self.beside) }
    }

    /// Runs all stages.
    pub(crate) fn run(&self) -> Vec<Report> {
        thread::scope(|scope| {
            let beside = scope.spawn(|| self.beside.iter().map(Stage::run_quietly).collect());
            let mut reports: Vec<Report> = self.shown.iter().map(Stage::run).collect();
            reports.extend(beside.join().unwrap_or_else(|_| {
                // A panic has been printed; the stages count as failed.
                let lost = |stage: &Stage| Report {
                    name: stage.name.clone(),
                    sums: Sums::default(),
                    took: Duration::ZERO,
                    broken: Some("this program panicked".to_owned()),
                    failures: Vec::new(),
                };
                self.beside.iter().map(lost).collect::<Vec<_>>()
            }));
            reports
        })
    }
}

/// The result of a stage.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) name: String,
    pub(crate) sums: Sums,
    pub(crate) took: Duration,
    /// The reason why the stage did not complete, if any.
    pub(crate) broken: Option<String>,
    /// The last lines that the harness printed about failed tests: their outputs and names.
    pub(crate) failures: Vec<String>,
}

/// Number of lines about failed tests that a report keeps.
const FAILURE_LINES: usize = 200;

impl Stage {
    /// Returns a stage that runs `cargo test` with these arguments.
    pub(crate) fn new(name: &str, arguments: &[&str]) -> Stage {
        let arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
        Stage { name: name.to_owned(), arguments, environment: Vec::new() }
    }

    /// Adds a variable to the stage's environment.
    pub(crate) fn with(mut self, key: &'static str, value: impl Into<OsString>) -> Stage {
        self.environment.push((key, value.into()));
        self
    }

    /// Runs the stage, and prints its output as it arrives.
    fn run(&self) -> Report {
        println!("\n=== {} ===", self.name);
        self.report(|line| println!("{line}"))
    }

    /// Runs the stage, and prints its output at its end.
    fn run_quietly(&self) -> Report {
        let mut text = format!("\n=== {} (ran beside) ===\n", self.name);
        let report = self.report(|line| {
            text.push_str(line);
            text.push('\n');
        });
        // A failed write is ignored: the report still counts.
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
        report
    }

    fn report(&self, show: impl FnMut(&str)) -> Report {
        let start = Instant::now();
        let mut log = Log::default();
        let broken = self.run_counted(&mut log, show).err();
        let Log { sums, failures, .. } = log;
        Report { name: self.name.clone(), sums, took: start.elapsed(), broken, failures }
    }

    fn run_counted(&self, log: &mut Log, mut show: impl FnMut(&str)) -> Result<(), String> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut child = Command::new(cargo)
            .arg("test")
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("starting cargo: {e}"))?;
        if let Some(pipe) = child.stdout.take() {
            for line in BufReader::new(pipe).split(b'\n') {
                let line = line.map_err(|e| format!("reading its output: {e}"))?;
                let line = String::from_utf8_lossy(&line);
                show(&line);
                log.add(&line);
            }
        }
        let status = child.wait().map_err(|e| e.to_string())?;
        // Without a failed test, the exit status has another cause: a build error, a test host that
        // did not start, or a crash.
        if !status.success() && log.sums.failed == 0 {
            return Err(format!("it ended with {status} and no failed test"));
        }
        if log.results == 0 {
            return Err("it reported nothing".to_owned());
        }
        Ok(())
    }
}

/// The summary of a stage's output.
#[derive(Debug, Default)]
struct Log {
    sums: Sums,
    /// Number of result lines.
    results: u32,
    failures: Vec<String>,
    in_failures: bool,
}

impl Log {
    fn add(&mut self, line: &str) {
        if let Some(found) = result_line(line) {
            self.sums.passed += found.passed;
            self.sums.failed += found.failed;
            self.results += 1;
            self.in_failures = false;
            return;
        }
        self.in_failures |= line == "failures:";
        if self.in_failures {
            self.failures.push(line.to_owned());
            let excess = self.failures.len().saturating_sub(FAILURE_LINES);
            self.failures.drain(..excess);
        }
    }
}

/// Reads `test result: ok. 3 passed; 0 failed; ...`. An indented line is a part of a test's output.
fn result_line(line: &str) -> Option<Sums> {
    let rest = line.strip_prefix("test result: ")?;
    let number = |word: &str| -> Option<u64> {
        let before = rest.split(word).next()?;
        before.trim_end().rsplit(' ').next()?.parse().ok()
    };
    Some(Sums { passed: number(" passed")?, failed: number(" failed")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_result_line_is_read_with_its_numbers() {
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 1 filtered \
            out; finished in 2s";
        assert_eq!(result_line(line), Some(Sums { passed: 12, failed: 3 }));
        let line = "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; \
            finished in 0.00s";
        assert_eq!(result_line(line), Some(Sums { passed: 0, failed: 0 }));
    }

    #[test]
    fn test_log_keeps_the_lines_about_failures_and_no_others() {
        let mut log = Log::default();
        let failed = "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered \
            out; finished in 2s";
        let lines = ["test b ... FAILED", "failures:", "---- b ----", "at x:1", failed, "running"];
        lines.iter().for_each(|line| log.add(line));
        assert_eq!(log.failures, ["failures:", "---- b ----", "at x:1"]);
        assert_eq!((log.sums, log.results), (Sums { passed: 1, failed: 1 }, 1));
        log.add("failures:");
        (0..2 * FAILURE_LINES).for_each(|number| log.add(&number.to_string()));
        assert_eq!(log.failures.len(), FAILURE_LINES);
        assert_eq!(log.failures.last().map(String::as_str), Some("399"));
    }

    #[test]
    fn test_other_lines_are_no_results() {
        let inner = "    test result: ok. 1 passed; 0 failed; 0 ignored";
        for line in ["test a ... ok", "test result: ok", "running 3 tests", "", inner] {
            assert_eq!(result_line(line), None, "{line}");
        }
    }
}
