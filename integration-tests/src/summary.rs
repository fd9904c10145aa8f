//! The results of a run of tests: outcomes, and losses to the emulator.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

/// The result of a test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The test's name.
    pub name: String,
    /// Whether it passed.
    pub passed: bool,
    /// Seconds of the last attempt.
    pub seconds: f64,
    /// The end of the output of a test that failed; empty if it passed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
}

/// The results of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Each test once, in the order of their ends.
    pub tests: Vec<Outcome>,
    /// Hosts and guests that were lost during tests.
    pub losses: Vec<Loss>,
}

impl Summary {
    /// Returns the names of the tests that failed.
    pub fn failed(&self) -> impl Iterator<Item = &str> {
        self.tests.iter().filter(|test| !test.passed).map(|test| test.name.as_str())
    }

    /// Returns the number of lost hosts or guests.
    pub fn lost(&self, what: Lost) -> usize {
        self.losses.iter().filter(|loss| loss.lost == what).count()
    }

    /// Returns the closing lines of the standard harness, and lines about losses. The outputs of
    /// failed tests are here again, because they were printed long before the end.
    pub fn text(&self, seconds: f64) -> String {
        let mut text = String::new();
        let failed: Vec<&str> = self.failed().collect();
        if !failed.is_empty() {
            text.push_str("\nfailures:\n");
            for test in self.tests.iter().filter(|test| !test.passed) {
                let _ = writeln!(text, "\n---- {} ----\n{}", test.name, test.output.trim_end());
            }
            let _ = write!(text, "\nfailures:\n    {}\n", failed.join("\n    "));
        }
        let (hosts, guests) = (self.lost(Lost::Host), self.lost(Lost::Guest));
        let _ =
            write!(text, "\nlost to the emulator and tried again: {hosts} hosts, {guests} guests");
        for loss in &self.losses {
            let _ = write!(text, "\n    {loss}");
        }
        let _ = writeln!(
            text,
            "\ntest result: {}. {} passed; {} failed; 0 ignored; 0 measured; 0 filtered out; \
            finished in {seconds:.2}s",
            if failed.is_empty() { "ok" } else { "FAILED" },
            self.tests.len() - failed.len(),
            failed.len()
        );
        text
    }
}

/// The kind of a loss to the emulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lost {
    /// A host died or stopped during a test.
    Host,
    /// A guest had a triple fault, and was started again.
    Guest,
}

/// A loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// The kind.
    pub lost: Lost,
    /// The test that ran.
    pub test: String,
    /// Seconds that this attempt of the test had run.
    pub seconds: f64,
    /// The reason, in one line.
    pub reason: String,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.lost {
            Lost::Host => "host",
            Lost::Guest => "guest",
        };
        write!(f, "{what} lost after {:.0} s of {}: {}", self.seconds, self.test, self.reason)
    }
}
