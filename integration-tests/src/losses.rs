//! Records of test runs in emulated hosts, to count losses over many runs.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use guest_images::cache::target_dir;
use serde::{Deserialize, Serialize};

use crate::summary::{Lost, Summary};

/// One run: a line of the file of records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The end of the run, in seconds since 1970.
    pub ended: u64,
    /// The seed of the tests' order.
    pub seed: u64,
    /// Number of concurrent emulated hosts.
    pub hosts: usize,
    /// Duration in seconds.
    pub seconds: f64,
    /// Tests and losses.
    #[serde(flatten)]
    pub summary: Summary,
}

impl Record {
    /// Returns a record of a run that ends now.
    pub fn new(summary: Summary, seed: u64, hosts: usize, seconds: f64) -> Record {
        let ended = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Record { ended, seed, hosts, seconds, summary }
    }

    /// Returns the default file of records.
    pub fn default_file() -> PathBuf {
        target_dir().join("guest-runs.jsonl")
    }

    /// Appends the record to a file, as one line.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn append(&self, file: &Path) -> io::Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        File::options().create(true).append(true).open(file)?.write_all(&line)
    }

    /// Reads all records of a file, in the order of their addition; none if there is no file.
    ///
    /// # Errors
    /// The file cannot be read, or has another format.
    pub fn read_all(file: &Path) -> io::Result<Vec<Record>> {
        let file = match File::open(file) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let lines = BufReader::new(file).lines();
        lines.map(|line| Ok(serde_json::from_str(&line?)?)).collect()
    }
}

/// The sums of several runs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Statistics {
    runs: usize,
    tests: usize,
    failed: usize,
    hosts: usize,
    guests: usize,
    seconds: f64,
}

impl Statistics {
    /// Returns the sums of runs.
    pub fn of(records: &[Record]) -> Statistics {
        let mut sums = Statistics { runs: records.len(), ..Statistics::default() };
        for record in records {
            sums.tests += record.summary.tests.len();
            sums.failed += record.summary.failed().count();
            sums.hosts += record.summary.lost(Lost::Host);
            sums.guests += record.summary.lost(Lost::Guest);
            sums.seconds += record.seconds;
        }
        sums
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hundredth = |count: usize| count as f64 * 100.0 / self.tests.max(1) as f64;
        write!(
            f,
            "{} runs, {} tests, {} failed, {:.0} s: {} hosts lost ({:.2} per hundred tests), \
            {} guests lost ({:.2})",
            self.runs,
            self.tests,
            self.failed,
            self.seconds,
            self.hosts,
            hundredth(self.hosts),
            self.guests,
            hundredth(self.guests)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::{Loss, Outcome};

    fn record(passed: usize, lost: &[Lost]) -> Record {
        let outcome = |number| Outcome {
            name: format!("test_{number}"),
            passed: true,
            seconds: 2.0,
            output: String::new(),
        };
        let loss = |lost: &Lost| Loss {
            lost: *lost,
            test: "test_0".into(),
            seconds: 9.0,
            reason: "idle".into(),
        };
        let summary = Summary {
            tests: (0..passed).map(outcome).collect(),
            losses: lost.iter().map(loss).collect(),
        };
        Record::new(summary, 5, 2, 10.0)
    }

    #[test]
    fn test_records_added_to_a_file_are_read_back_in_order() {
        let file = std::env::temp_dir().join(format!("synthvm-records-{}", std::process::id()));
        assert_eq!(Record::read_all(&file).unwrap(), []);
        let records = [record(3, &[Lost::Host]), record(4, &[])];
        records.iter().for_each(|record| record.append(&file).unwrap());
        let read = Record::read_all(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(read, records);
    }

    #[test]
    fn test_statistics_are_losses_per_hundred_tests_over_all_runs() {
        let statistics =
            Statistics::of(&[record(30, &[Lost::Host, Lost::Guest]), record(10, &[Lost::Guest])]);
        assert_eq!(
            statistics.to_string(),
            "2 runs, 40 tests, 0 failed, 20 s: 1 hosts lost (2.50 per hundred tests), 2 guests \
            lost (5.00)"
        );
        assert!(Statistics::default().to_string().contains("0 hosts lost (0.00"));
    }

    #[test]
    fn test_loss_is_shown_with_its_test_and_its_reason() {
        let text = record(0, &[Lost::Guest]).summary.losses[0].to_string();
        assert_eq!(text, "guest lost after 9 s of test_0: idle");
    }
}
