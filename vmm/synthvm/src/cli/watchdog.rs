//! The shutdown watchdog: ends the program when its machine cannot end.
//!
//! The end or a reset of a machine waits for the guest's requests in flight, because the host's
//! kernel accesses guest memory until they finish. Without the watchdog, unresponsive storage would
//! block the program without limit and without a message.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::thread;
use std::time::Duration;

/// Longest time without progress before the program ends.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

/// A disk that has requests in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    /// The disk's name for users.
    pub(super) id: String,
    /// The path of the image.
    pub(super) path: String,
    /// Requests in flight.
    pub(super) in_flight: u64,
    /// Requests that the disk has finished.
    pub(super) finished: u64,
}

/// The watchdog, which runs until it is dropped.
#[derive(Debug)]
pub(super) struct Watchdog {
    _over: Sender<()>,
}

impl Watchdog {
    /// Calls `look` for the disks that have requests in flight, each time `timeout` has passed. If
    /// two results in a row are equal, calls `give_up` with a sentence that names the disks. If no
    /// thread can be started, there is no watchdog; the log reports it.
    pub(super) fn start(
        timeout: Duration,
        look: impl Fn() -> Vec<Waiting> + Send + 'static,
        give_up: impl FnOnce(String) + Send + 'static,
    ) -> Self {
        let (over, until) = mpsc::channel::<()>();
        let watch = move || {
            if let Some(stalled) = stall(timeout, &look, &until) {
                give_up(describe(&stalled, timeout));
            }
        };
        if let Err(error) = thread::Builder::new().name("watchdog".into()).spawn(watch) {
            tracing::warn!("the shutdown watchdog cannot start: {error}");
        }
        Watchdog { _over: over }
    }
}

/// Waits until two results of `look` in a row are equal, and returns that result. Returns `None` if
/// the machine has ended.
fn stall(
    timeout: Duration,
    look: impl Fn() -> Vec<Waiting>,
    until: &Receiver<()>,
) -> Option<Vec<Waiting>> {
    let mut before = look();
    while until.recv_timeout(timeout) == Err(RecvTimeoutError::Timeout) {
        let now = look();
        if now == before {
            // The machine may have ended during the call.
            return (until.try_recv() == Err(TryRecvError::Empty)).then_some(now);
        }
        before = now;
    }
    None
}

fn describe(disks: &[Waiting], timeout: Duration) -> String {
    let seconds = timeout.as_secs();
    if disks.is_empty() {
        return format!(
            "the machine has been ending for {seconds} seconds, although no disk has requests in \
            flight; \
             writes that its guest had not flushed may be lost"
        );
    }
    let name =
        |disk: &Waiting| format!("`{}` ({}): {} in flight", disk.id, disk.path, disk.in_flight);
    let disks: Vec<String> = disks.iter().map(name).collect();
    format!(
        "the machine has ended, but its storage has finished no request for {seconds} seconds; \
        the last requests to these disks may be lost: {}",
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

    /// Returns the sentence with which the watchdog ends the program; `None` if the watchdog is
    /// dropped first, after `looks` calls of `look`.
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
        let watchdog = Watchdog::start(SOON, look, move |sentence| _ = told.send(sentence));
        // Returns after that number of calls, or at the end of the thread.
        let _ = enough.recv();
        drop(watchdog);
        hear.recv().ok()
    }

    #[test]
    fn test_watchdog_gives_up_when_nothing_moves_and_names_the_disks() {
        let sentence = outcome(|_| vec![disk(3, 7)], u64::MAX).unwrap();
        assert!(
            sentence.contains("`data` (/a.img): 3 in flight") && !sentence.contains('\n'),
            "{sentence}"
        );
    }

    #[test]
    fn test_watchdog_gives_up_on_a_machine_that_hangs_without_requests() {
        let sentence = outcome(|_| Vec::new(), u64::MAX).unwrap();
        assert!(
            sentence.contains("no disk has requests") && !sentence.contains('\n'),
            "{sentence}"
        );
    }

    #[test]
    fn test_watchdog_continues_while_requests_end() {
        assert_eq!(outcome(|look| vec![disk(3, look)], 20), None);
        assert_eq!(outcome(|look| vec![disk(1000 - look, 7)], 20), None);
    }

    #[test]
    fn test_watchdog_that_is_over_gives_up_on_nothing() {
        let (told, hear) = mpsc::channel();
        drop(Watchdog::start(
            Duration::MAX,
            || vec![disk(1, 1)],
            move |sentence| _ = told.send(sentence),
        ));
        assert!(hear.recv().is_err());
    }
}
