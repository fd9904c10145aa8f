//! Runs tests by name in several concurrent test hosts, with one command per test.
//!
//! An emulated host has one processor, because hosts with more lose their guests or stop. So the
//! machine's processors are used by concurrent hosts. Each test is a separate command: a lost host
//! costs one attempt of one test, and no test sees processes of another.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use crate::host::{HostError, OutputSink};
use crate::runner::{LOST_GUEST, TRIPLE_FAULT};
use crate::summary::{Loss, Lost, Outcome, Summary};

/// Number of attempts of a test whose host was lost.
const ATTEMPTS: u32 = 3;

/// Bytes of a failed test's output that the summary keeps.
const KEPT: usize = 8 << 10;

/// A host that runs one test after another.
pub trait TestHost {
    /// Runs the test with this name and returns its exit status; 0 is a pass.
    ///
    /// # Errors
    /// [`HostError::Hung`] and [`HostError::Died`]: the host is lost, and the test has no result.
    fn run(&mut self, name: &str, sink: &mut dyn OutputSink) -> Result<i32, HostError>;
}

/// Runs all tests on at most `hosts` hosts, each made by `start` when needed. Prints a line for
/// each test as it ends, with its whole output if it failed.
///
/// # Errors
/// A host could not be made. Running tests are completed; the others are not started.
pub fn run<H: TestHost>(
    names: &[String],
    hosts: usize,
    start: impl Fn() -> Result<H, HostError> + Sync,
) -> Result<Summary, HostError> {
    run_and_report(names, hosts, start, print)
}

/// Runs all tests like [`run`], and calls `report` with the lines of each test as it ends.
fn run_and_report<H: TestHost>(
    names: &[String],
    hosts: usize,
    start: impl Fn() -> Result<H, HostError> + Sync,
    report: fn(&str),
) -> Result<Summary, HostError> {
    let shared = Mutex::new(Shared {
        queue: names.iter().map(|name| Job { name: name.clone(), attempt: 1 }).collect(),
        summary: Summary::default(),
        error: None,
        report,
    });
    thread::scope(|scope| {
        for _ in 0..hosts.clamp(1, names.len().max(1)) {
            scope.spawn(|| work(&shared, &start));
        }
    });
    let shared = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
    match shared.error {
        Some(error) => Err(error),
        None => Ok(shared.summary),
    }
}

struct Job {
    name: String,
    attempt: u32,
}

struct Shared {
    queue: VecDeque<Job>,
    summary: Summary,
    error: Option<HostError>,
    report: fn(&str),
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs tests on one host after another, until no test is left.
fn work<H: TestHost>(shared: &Mutex<Shared>, start: &impl Fn() -> Result<H, HostError>) {
    let mut host = None;
    loop {
        let next = lock(shared).queue.pop_front();
        let Some(job) = next else { return };
        if host.is_none() {
            match start() {
                Ok(started) => host = Some(started),
                Err(error) => {
                    let mut shared = lock(shared);
                    shared.queue.clear();
                    shared.error.get_or_insert(error);
                    return;
                }
            }
        }
        let Some(running) = host.as_mut() else { return };
        let begin = Instant::now();
        let mut output = Output::default();
        let result = running.run(&job.name, &mut output);
        if result.as_ref().is_err_and(|error| error.loss().is_some()) {
            host = None;
        }
        conclude(shared, job, result, &output, begin.elapsed().as_secs_f64());
    }
}

fn conclude(
    shared: &Mutex<Shared>,
    job: Job,
    result: Result<i32, HostError>,
    output: &Output,
    seconds: f64,
) {
    // Indented: the closing lines of a test's own harness are no results of this run.
    let said = indented(&String::from_utf8_lossy(&output.0));
    let name = &job.name;
    let mut text = String::new();
    let mut shared = lock(shared);
    let mut lose = |lost: Lost, reason: &str| {
        let reason = reason.to_owned();
        shared.summary.losses.push(Loss { lost, test: name.clone(), seconds, reason });
    };
    let guests: Vec<&str> = said.lines().filter(|line| line.contains(LOST_GUEST)).collect();
    guests.iter().for_each(|_| lose(Lost::Guest, TRIPLE_FAULT));
    let loss = result.as_ref().err().and_then(HostError::loss);
    if let Some(reason) = &loss {
        lose(Lost::Host, reason);
    }
    let passed = matches!(result, Ok(0));
    match result {
        Ok(0) => {
            for line in guests {
                let _ = writeln!(text, "{line}");
            }
            let _ = writeln!(text, "test {name} ... ok <{seconds:.1}s>");
        }
        Err(error) if job.attempt < ATTEMPTS && loss.is_some() => {
            let _ = writeln!(text, "{said}test {name}: {error}\ntest {name}: again in a new host");
            shared.queue.push_front(Job { attempt: job.attempt + 1, ..job });
            (shared.report)(&text);
            return;
        }
        Ok(code) => {
            let _ = writeln!(
                text,
                "{said}test {name} ... FAILED <{seconds:.1}s> (exit status {code})\n"
            );
        }
        Err(error) => {
            let _ = writeln!(text, "{said}test {name} ... FAILED <{seconds:.1}s> ({error})\n");
        }
    }
    let output = if passed { String::new() } else { tail(&text).to_owned() };
    shared.summary.tests.push(Outcome { name: job.name, passed, seconds, output });
    (shared.report)(&text);
}

fn indented(text: &str) -> String {
    text.lines().fold(String::new(), |mut all, line| {
        let _ = writeln!(all, "{}{line}", if line.is_empty() { "" } else { "    " });
        all
    })
}

/// Returns the last lines of an output, of at most [`KEPT`] bytes together.
fn tail(text: &str) -> &str {
    let start = text.ceil_char_boundary(text.len().saturating_sub(KEPT));
    let from = match text[start..].find('\n') {
        Some(end) if start > 0 => start + end + 1,
        _ => start,
    };
    &text[from..]
}

fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// The output of a test, in order of arrival.
#[derive(Default)]
struct Output(Vec<u8>);

impl OutputSink for Output {
    fn stdout(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn stderr(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A host whose answers depend on the test's name: "pass", "fail", "hang"; "once-N" is lost N
    /// times before it passes.
    struct Fake<'a>(&'a AtomicUsize);

    impl TestHost for Fake<'_> {
        fn run(&mut self, name: &str, sink: &mut dyn OutputSink) -> Result<i32, HostError> {
            sink.stdout(name.as_bytes());
            let lost =
                || HostError::Hung { seconds: 1, why: "idle".to_owned(), console: String::new() };
            match name {
                "pass" => Ok(0),
                "fail" => Ok(101),
                "guest" => {
                    sink.stderr(format!("\n{LOST_GUEST}\n").as_bytes());
                    Ok(0)
                }
                "hang" => Err(lost()),
                _ => {
                    let left = self
                        .0
                        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
                    if left.is_ok() { Err(lost()) } else { Ok(0) }
                }
            }
        }
    }

    fn summary(names: &[&str], hosts: usize, losses: usize) -> (Summary, usize) {
        let (started, left) = (AtomicUsize::new(0), AtomicUsize::new(losses));
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let start = || {
            started.fetch_add(1, Ordering::SeqCst);
            Ok(Fake(&left))
        };
        let summary = run_and_report(&names, hosts, start, |_| ()).unwrap();
        (summary, started.into_inner())
    }

    /// Returns the numbers of passed tests, failed tests, lost hosts and lost guests.
    fn counts(summary: &Summary) -> [usize; 4] {
        let failed = summary.failed().count();
        let passed = summary.tests.len() - failed;
        [passed, failed, summary.lost(Lost::Host), summary.lost(Lost::Guest)]
    }

    #[test]
    fn test_run_on_several_hosts_counts_every_test_once() {
        let names = ["pass", "fail", "pass", "pass", "guest"];
        let (summary, started) = summary(&names, 3, 0);
        assert_eq!(counts(&summary), [4, 1, 0, 1]);
        assert!(summary.failed().eq(["fail"]));
        assert_eq!(summary.losses[0].test, "guest");
        assert!((1..=3).contains(&started), "{started}");
    }

    #[test]
    fn test_run_of_a_test_whose_host_is_lost_is_repeated_in_a_new_host() {
        let (summary, started) = summary(&["lossy"], 1, 2);
        assert_eq!(counts(&summary), [1, 0, 2, 0]);
        assert!(
            summary.losses.iter().all(|loss| loss.reason == "silent for 1 s: idle"),
            "{summary:?}"
        );
        assert_eq!(started, 3);
    }

    #[test]
    fn test_run_of_a_test_that_loses_every_host_fails_and_the_others_continue() {
        let (summary, started) = summary(&["hang", "pass"], 1, 0);
        assert_eq!(counts(&summary), [1, 1, 3, 0]);
        assert!(summary.failed().eq(["hang"]));
        assert_eq!(started, 4);
    }

    #[test]
    fn test_run_without_a_host_is_an_error_and_begins_nothing_more() {
        let start = || Err::<Fake<'_>, _>(HostError::Prepare("no emulator".to_owned()));
        let error = run(&["pass".to_owned()], 2, start).unwrap_err();
        assert!(error.to_string().contains("no emulator"), "{error}");
    }

    #[test]
    fn test_summary_text_repeats_the_output_of_failed_tests_before_their_names() {
        let (summary, _) = summary(&["pass", "fail"], 1, 0);
        let text = summary.text(1.5);
        let repeated = "---- fail ----\n    fail\ntest fail ... FAILED";
        assert!(text.contains(repeated), "{text}");
        assert!(text.contains("\nfailures:\n    fail\n"), "{text}");
        assert!(!text.contains("test pass"), "{text}");
    }

    #[test]
    fn test_tail_of_a_long_output_is_its_last_whole_lines() {
        let long = "one line\n".repeat(KEPT);
        assert!(tail(&long).len() <= KEPT && tail(&long).starts_with("one line\n"));
        assert_eq!(tail("short\n"), "short\n");
    }

    #[test]
    fn test_summary_text_is_the_harness_line_with_the_losses_and_their_reasons() {
        let (summary, _) = summary(&["pass", "fail", "lossy"], 1, 1);
        let text = summary.text(1.5);
        assert!(
            text.contains("1 hosts, 0 guests\n    host lost after 0 s of lossy: silent for 1 s"),
            "{text}"
        );
        assert!(text.contains("test result: FAILED. 2 passed; 1 failed; 0 ignored;"), "{text}");
    }
}
