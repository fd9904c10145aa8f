//! The progress of the comparison, for people.

use std::time::Instant;

/// A reporter of progress, on standard error.
#[derive(Debug)]
pub(super) struct Progress {
    start: Instant,
    done: usize,
    all: usize,
}

impl Progress {
    /// Returns a reporter for `all` loads, `done` of which are done.
    pub(super) fn new(done: usize, all: usize) -> Progress {
        Progress { start: Instant::now(), done, all }
    }

    /// Prints a message with the current progress.
    pub(super) fn say(&self, what: &str) {
        let seconds = self.start.elapsed().as_secs();
        eprintln!(
            "  .. {:>3}/{} {}:{:02}  {what}",
            self.done,
            self.all,
            seconds / 60,
            seconds % 60
        );
    }

    /// Counts a load as done: its machine, its name and its work, and the seconds that it took.
    pub(super) fn count(&mut self, machine: &str, case: &str, work: &str, seconds: f64) {
        self.done += 1;
        self.say(&format!("{machine:7}  {case:20}  {work} in {seconds:.1} s"));
    }
}
