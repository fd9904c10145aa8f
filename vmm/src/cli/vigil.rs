//! Sees to it that a machine that is to end does end, although its storage does not answer.
//!
//! What the guest has in flight when its machine ends, or resets, is waited for: the host's kernel reads and writes guest memory until then.
//! Storage that has stopped answering would hold the program up for ever, and nobody would know why.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

/// How long no disk may finish anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A disk that has requests in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    /// What its user calls it.
    pub(super) id: String,
    /// Its image.
    pub(super) path: String,
    /// Requests in flight.
    pub(super) in_flight: u64,
    /// Requests that it has finished.
    pub(super) finished: u64,
}

/// Watches until it is dropped.
#[derive(Debug)]
pub(super) struct Vigil {
    _over: Sender<()>,
}

impl Vigil {
    /// Asks `look` each `patience` for the disks that have requests in flight. When there are some, and nothing has changed since, `give_up`
    /// gets a sentence that names them. Without a thread nobody watches.
    pub(super) fn begin(
        patience: Duration,
        look: impl Fn() -> Vec<Waiting> + Send + 'static,
        give_up: impl FnOnce(String) + Send + 'static,
    ) -> Self {
        let (over, until) = mpsc::channel::<()>();
        let watch = move || {
            let mut before = look();
            while until.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                let now = look();
                if !now.is_empty() && now == before {
                    return give_up(describe(&now, patience));
                }
                before = now;
            }
        };
        if let Err(error) = thread::Builder::new().name("vigil".into()).spawn(watch) {
            tracing::warn!("nobody watches whether disks let the machine end: {error}");
        }
        Vigil { _over: over }
    }
}

fn describe(disks: &[Waiting], patience: Duration) -> String {
    let name = |disk: &Waiting| format!("`{}` ({}): {} in flight", disk.id, disk.path, disk.in_flight);
    let disks: Vec<String> = disks.iter().map(name).collect();
    format!(
        "the machine has ended, but its storage has finished nothing for {} seconds; what these disks were asked for last may be lost: {}",
        patience.as_secs(),
        disks.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const SOON: Duration = Duration::from_millis(1);

    fn disk(in_flight: u64, finished: u64) -> Waiting {
        Waiting { id: "data".into(), path: "/a.img".into(), in_flight, finished }
    }

    /// What it gives up with when `look` is asked; nothing if it ends otherwise.
    fn outcome(look: impl Fn(u64) -> Vec<Waiting> + Send + 'static, looks: u64) -> Option<String> {
        let (told, hear) = mpsc::channel();
        let (seen, enough) = mpsc::channel();
        let asked = AtomicU64::new(0);
        let look = move || {
            let number = asked.fetch_add(1, Ordering::SeqCst);
            if number == looks {
                let _ = seen.send(());
            }
            look(number)
        };
        let vigil = Vigil::begin(SOON, look, move |sentence| _ = told.send(sentence));
        // Either so many looks, or the end of the thread.
        let _ = enough.recv();
        drop(vigil);
        hear.recv().ok()
    }

    #[test]
    fn test_vigil_gives_up_when_nothing_moves_and_names_the_disks() {
        let sentence = outcome(|_| vec![disk(3, 7)], u64::MAX).unwrap();
        assert!(sentence.contains("`data` (/a.img): 3 in flight") && !sentence.contains('\n'), "{sentence}");
    }

    #[test]
    fn test_vigil_goes_on_while_requests_end_or_none_are_left() {
        assert_eq!(outcome(|look| vec![disk(3, look)], 20), None);
        assert_eq!(outcome(|look| vec![disk(1000 - look, 7)], 20), None);
        assert_eq!(outcome(|_| Vec::new(), 20), None);
    }

    #[test]
    fn test_vigil_that_is_over_gives_up_on_nothing() {
        let (told, hear) = mpsc::channel();
        drop(Vigil::begin(Duration::MAX, || vec![disk(1, 1)], move |sentence| _ = told.send(sentence)));
        assert!(hear.recv().is_err());
    }
}
