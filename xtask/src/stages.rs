//! Test stages, which run one after another, and the sums of their results.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
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

/// The result of a stage.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) name: String,
    pub(crate) sums: Sums,
    pub(crate) took: Duration,
    /// The reason why the stage did not complete, if any.
    pub(crate) broken: Option<String>,
}

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
    pub(crate) fn run(&self) -> Report {
        println!("\n=== {} ===", self.name);
        let start = Instant::now();
        let mut sums = Sums::default();
        let broken = self.run_counted(&mut sums).err();
        Report { name: self.name.clone(), sums, took: start.elapsed(), broken }
    }

    fn run_counted(&self, sums: &mut Sums) -> Result<(), String> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut child = Command::new(cargo)
            .arg("test")
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("starting cargo: {e}"))?;
        let mut reports = 0;
        if let Some(pipe) = child.stdout.take() {
            for line in BufReader::new(pipe).split(b'\n') {
                let line = line.map_err(|e| format!("reading its output: {e}"))?;
                let line = String::from_utf8_lossy(&line);
                println!("{line}");
                if let Some(found) = result_line(&line) {
                    sums.passed += found.passed;
                    sums.failed += found.failed;
                    reports += 1;
                }
            }
        }
        let status = child.wait().map_err(|e| e.to_string())?;
        // Without a failed test, the exit status has another cause: a build error, a test host that
        // did not start, or a crash.
        if !status.success() && sums.failed == 0 {
            return Err(format!("it ended with {status} and no failed test"));
        }
        if reports == 0 {
            return Err("it reported nothing".to_owned());
        }
        Ok(())
    }
}

/// Reads `test result: ok. 3 passed; 0 failed; ...`.
fn result_line(line: &str) -> Option<Sums> {
    let rest = line.trim().strip_prefix("test result: ")?;
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
    fn test_other_lines_are_no_results() {
        for line in ["test a ... ok", "test result: ok", "running 3 tests", ""] {
            assert_eq!(result_line(line), None, "{line}");
        }
    }
}
