//! The silence of a host: when to examine its processors, and when to give up.

use std::io;
use std::time::{Duration, Instant};

use super::HostOptions;
use super::monitor::{Monitor, Processor, describe, processor_time};

/// Time between the two queries of the processors.
const BETWEEN_LOOKS: Duration = Duration::from_secs(5);

/// The silence of one host, which ends with the host's next output.
#[derive(Debug)]
pub(super) struct Silence {
    monitor: Monitor,
    /// The emulator's process id.
    pid: u32,
    /// The processors' state without a guest.
    host: Vec<Processor>,
    since: Instant,
    first: Option<Look>,
    finding: Option<String>,
}

/// The result of one query.
#[derive(Debug)]
struct Look {
    at: Instant,
    processors: io::Result<Vec<Processor>>,
    /// Processor time of the emulator.
    time: Option<Duration>,
}

impl Silence {
    pub(super) fn new(monitor: Monitor, pid: u32) -> Silence {
        Silence {
            monitor,
            pid,
            host: Vec::new(),
            since: Instant::now(),
            first: None,
            finding: None,
        }
    }

    /// Records the state of the host's own kernel, to distinguish a guest's from it. No guest may
    /// run.
    pub(super) fn learn(&mut self) {
        self.host = self.monitor.look("the host is ready").unwrap_or_default();
    }

    /// Ends the silence: the host has written output, or a command starts.
    pub(super) fn end(&mut self) {
        self.since = Instant::now();
        self.first = None;
        self.finding = None;
    }

    /// Returns the time until the next action.
    pub(super) fn until_next(&self, options: &HostOptions) -> Duration {
        let look = match (&self.first, &self.finding) {
            (None, _) => Some(self.since + options.look_after),
            (Some(first), None) => Some(first.at + BETWEEN_LOOKS),
            (Some(_), Some(_)) => None,
        };
        let end = self.since + options.quiet_limit;
        look.map_or(end, |look| look.min(end)).saturating_duration_since(Instant::now())
    }

    /// Returns whether the host has been silent for too long.
    pub(super) fn is_over(&self, options: &HostOptions) -> bool {
        self.since.elapsed() >= options.quiet_limit
    }

    /// Queries the processors. After the second query, returns their activity in one line.
    pub(super) fn look(&mut self) -> Option<&str> {
        let title = format!("silent for {} s", self.since.elapsed().as_secs());
        let look = Look {
            at: Instant::now(),
            time: processor_time(self.pid),
            processors: self.monitor.look(&title),
        };
        match &self.first {
            None => {
                self.first = Some(look);
                None
            }
            Some(first) => {
                self.finding = Some(find(first, &look, &self.host));
                self.finding.as_deref()
            }
        }
    }

    /// Returns the processors' activity, if it was queried twice.
    pub(super) fn finding(&self) -> Option<&str> {
        self.finding.as_deref()
    }
}

fn find(first: &Look, second: &Look, host: &[Processor]) -> String {
    let mut text = match (&first.processors, &second.processors) {
        (Ok(before), Ok(after)) => describe(before, after, host),
        (_, Err(error)) | (Err(error), _) => {
            format!("the emulator's monitor does not answer ({error})")
        }
    };
    if let (Some(before), Some(after)) = (first.time, second.time) {
        let busy = after.saturating_sub(before).as_secs_f64();
        let seconds = second.at.duration_since(first.at).as_secs_f64();
        text.push_str(&format!(
            "; the emulator took {busy:.1} s of processor time in {seconds:.1} s"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::image::WorkDir;

    /// Returns a silent host's state, and the folder of its log.
    fn silence() -> (Silence, WorkDir) {
        let (ours, _) = UnixStream::pair().unwrap();
        let dir = WorkDir::new().unwrap();
        let monitor = Monitor::new(ours, dir.path().join("monitor")).unwrap();
        (Silence::new(monitor, std::process::id()), dir)
    }

    #[test]
    fn test_silence_is_looked_at_twice_and_then_only_waited_for() {
        let options = HostOptions {
            look_after: Duration::ZERO,
            quiet_limit: Duration::from_secs(1000),
            ..HostOptions::default()
        };
        let (mut silence, _dir) = silence();
        assert_eq!(silence.until_next(&options), Duration::ZERO);
        assert_eq!(silence.look(), None);
        assert!(silence.until_next(&options) <= BETWEEN_LOOKS);
        let finding = silence.look().unwrap().to_owned();
        assert!(
            finding.contains("does not answer") && finding.contains("processor time"),
            "{finding}"
        );
        assert!(silence.until_next(&options) > BETWEEN_LOOKS && !silence.is_over(&options));
        silence.end();
        assert_eq!((silence.finding(), silence.until_next(&options)), (None, Duration::ZERO));
    }

    #[test]
    fn test_silence_longer_than_the_limit_is_over() {
        let options = HostOptions { quiet_limit: Duration::ZERO, ..HostOptions::default() };
        let (silence, _dir) = silence();
        assert!(silence.is_over(&options));
        assert_eq!(silence.until_next(&options), Duration::ZERO);
    }
}
