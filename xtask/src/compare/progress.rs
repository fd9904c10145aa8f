//! How far the comparison is, for people.

use std::time::Instant;

use super::cases::Case;

/// Says how far it is, on standard error.
#[derive(Debug)]
pub(super) struct Progress {
    start: Instant,
    done: usize,
    all: usize,
}

impl Progress {
    /// So many loads of all are done.
    pub(super) fn new(done: usize, all: usize) -> Progress {
        Progress { start: Instant::now(), done, all }
    }

    /// Says something, with the place where we are.
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

    /// Another load is done, in so many seconds.
    pub(super) fn count(&mut self, machine: &str, case: &Case, seconds: f64) {
        self.done += 1;
        self.say(&format!(
            "{machine:7}  {:20}  {} requests in {seconds:.1} s",
            case.name(),
            case.requests
        ));
    }
}
