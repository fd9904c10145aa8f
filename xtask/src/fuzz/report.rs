//! The output of a fuzzing process, and the table of all results.

use std::time::Duration;

/// The results of one process, from its output.
#[derive(Debug, Clone, Default)]
pub(super) struct Job {
    executions: u64,
    coverage: u64,
    corpus: u64,
    rss_mib: u64,
    /// Inputs that failed, each with the reason.
    findings: Vec<String>,
    /// The last panic or error that the process reported.
    why: Option<String>,
    /// Whether the next line is the message of a panic.
    in_panic: bool,
}

impl Job {
    /// Processes a line of the output.
    pub(super) fn read(&mut self, line: &str) {
        let line = line.trim();
        if let Some(status) = line.strip_prefix('#') {
            self.read_status(status);
        } else if let Some(number) = stat(line, "number_of_executed_units:") {
            self.executions = self.executions.max(number);
        } else if let Some(number) = stat(line, "peak_rss_mb:") {
            self.rss_mib = self.rss_mib.max(number);
        } else if let Some((_, path)) = line.split_once("Test unit written to ") {
            // A slow input is no finding: an input that is too slow is reported as a timeout.
            if !path.contains("-slow-unit-") {
                let why = self.why.take().unwrap_or_else(|| "no reason given".to_owned());
                self.findings.push(format!("{path}: {why}"));
            }
        } else if line.contains(" panicked at ") {
            self.why = Some(line.to_owned());
            self.in_panic = true;
        } else if self.in_panic {
            self.in_panic = false;
            self.why = self.why.take().map(|why| format!("{why} {line}"));
        } else if line.contains("ERROR: ") && self.why.is_none() {
            self.why = Some(line.to_owned());
        }
    }

    /// Reads `2097152 pulse  cov: 975 ft: 1397 corp: 13/2234b exec/s: 5 rss: 39Mb`.
    fn read_status(&mut self, status: &str) {
        let mut words = status.split_whitespace();
        let Some(executions) = words.next().and_then(|word| word.parse().ok()) else { return };
        self.executions = self.executions.max(executions);
        while let Some(word) = words.next() {
            let place = match word {
                "cov:" => &mut self.coverage,
                "corp:" => &mut self.corpus,
                "rss:" => &mut self.rss_mib,
                _ => continue,
            };
            *place = words.next().and_then(leading_number).unwrap_or(0).max(*place);
        }
    }

    /// Records the end of the process. A process that failed has a finding, even without a message.
    pub(super) fn ended(&mut self, success: bool, status: &str) {
        if !success && self.findings.is_empty() {
            let why = self.why.take().unwrap_or_default();
            self.findings.push(format!("it ended with {status} and left no input; {why}"));
        }
    }
}

fn stat(line: &str, name: &str) -> Option<u64> {
    line.strip_prefix("stat::")?.strip_prefix(name)?.trim().parse().ok()
}

fn leading_number(word: &str) -> Option<u64> {
    let end = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
    word.get(..end)?.parse().ok()
}

/// The results of all processes of one target.
#[derive(Debug)]
pub(super) struct Report {
    name: &'static str,
    took: Duration,
    sum: Job,
}

impl Report {
    /// Returns the sums of executions and findings; other values are the maximum of all processes,
    /// which share a corpus.
    pub(super) fn new(name: &'static str, jobs: &[Job], took: Duration) -> Self {
        let mut sum = Job::default();
        for job in jobs {
            sum.executions += job.executions;
            sum.coverage = sum.coverage.max(job.coverage);
            sum.corpus = sum.corpus.max(job.corpus);
            sum.rss_mib = sum.rss_mib.max(job.rss_mib);
            sum.findings.extend(job.findings.iter().cloned());
        }
        Self { name, took, sum }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.sum.findings.is_empty()
    }

    pub(super) fn findings(&self) -> &[String] {
        &self.sum.findings
    }

    fn per_second(&self) -> u64 {
        (self.sum.executions as f64 / self.took.as_secs_f64().max(0.001)) as u64
    }

    /// Returns the line of progress while the target runs.
    pub(super) fn progress(&self) -> String {
        format!(
            "{:14} {:4} s  {} executions, {}/s, {} edges, corpus {}, {} MiB, {} findings",
            self.name,
            self.took.as_secs(),
            grouped(self.sum.executions),
            grouped(self.per_second()),
            self.sum.coverage,
            self.sum.corpus,
            self.sum.rss_mib,
            self.sum.findings.len()
        )
    }
}

/// Returns a table with one row per target.
pub(super) fn table(reports: &[Report]) -> String {
    let mut text = format!(
        "{:14} {:>8} {:>14} {:>9} {:>7} {:>7} {:>9} {:>9}\n",
        "target", "seconds", "executions", "exec/s", "edges", "corpus", "peak MiB", "findings"
    );
    for report in reports {
        let job = &report.sum;
        text.push_str(&format!(
            "{:14} {:>8} {:>14} {:>9} {:>7} {:>7} {:>9} {:>9}\n",
            report.name,
            report.took.as_secs(),
            grouped(job.executions),
            grouped(report.per_second()),
            job.coverage,
            job.corpus,
            job.rss_mib,
            job.findings.len()
        ));
    }
    text
}

/// Returns the last line.
pub(super) fn closing_line(reports: &[Report]) -> String {
    let executions: u64 = reports.iter().map(|report| report.sum.executions).sum();
    let findings: usize = reports.iter().map(|report| report.sum.findings.len()).sum();
    format!("{} targets, {} executions, {findings} findings", reports.len(), grouped(executions))
}

/// Formats a number with separators: 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place != 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(lines: &[&str]) -> Job {
        let mut job = Job::default();
        lines.iter().for_each(|line| job.read(line));
        job
    }

    #[test]
    fn test_job_reads_status_and_final_statistics() {
        let job = job(&[
            "INFO: Seed: 12",
            "#17\tINITED cov: 441 ft: 984 corp: 13/809b exec/s: 0 rss: 39Mb",
            "#2097152\tpulse  cov: 975 ft: 1397 corp: 130/2234b lim: 409 exec/s: 5808 rss: 61Mb",
            "stat::number_of_executed_units: 2097999",
            "stat::peak_rss_mb:              109",
        ]);
        assert_eq!(
            (job.executions, job.coverage, job.corpus, job.rss_mib),
            (2_097_999, 975, 130, 109)
        );
        assert!(job.findings.is_empty());
    }

    #[test]
    fn test_job_that_panics_is_a_finding_with_its_reason() {
        let job = job(&[
            "thread '<unnamed>' (1) panicked at src/a.rs:84:9:",
            "644 bytes kept for 0 words",
            "==1== ERROR: libFuzzer: deadly signal",
            "artifact_prefix='x/t-'; Test unit written to x/t-crash-1",
        ]);
        assert_eq!(
            job.findings,
            ["x/t-crash-1: thread '<unnamed>' (1) panicked at src/a.rs:84:9: 644 bytes kept for \
                0 words"]
        );
    }

    #[test]
    fn test_job_that_is_slow_only_is_no_finding_and_one_that_hangs_is() {
        let slow = job(&["artifact_prefix='x/t-'; Test unit written to x/t-slow-unit-1"]);
        assert!(slow.findings.is_empty());
        let hung = job(&[
            "==1== ERROR: libFuzzer: timeout after 10 seconds",
            "artifact_prefix='x/t-'; Test unit written to x/t-timeout-1",
        ]);
        assert_eq!(
            hung.findings,
            ["x/t-timeout-1: ==1== ERROR: libFuzzer: timeout after 10 seconds"]
        );
    }

    #[test]
    fn test_job_that_ends_badly_without_an_input_is_a_finding() {
        let mut job = Job::default();
        job.ended(true, "exit status: 0");
        assert!(job.findings.is_empty());
        job.ended(false, "signal: 9");
        assert_eq!(job.findings.len(), 1);
    }

    #[test]
    fn test_closing_line_adds_up_all_targets() {
        let jobs = [job(&["#1000000\tpulse cov: 5"]), job(&["#234567\tpulse cov: 7"])];
        let reports = [
            Report::new("a", &jobs, Duration::from_secs(2)),
            Report::new("b", &[], Duration::ZERO),
        ];
        assert_eq!(closing_line(&reports), "2 targets, 1,234,567 executions, 0 findings");
        assert!(table(&reports).contains("1,234,567"));
        assert_eq!(reports[0].sum.coverage, 7);
    }
}
