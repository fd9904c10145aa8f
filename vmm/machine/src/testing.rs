//! Calls that may hang, for tests.

use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

/// A wait of this length has failed: no test depends on time.
const FOREVER: Duration = Duration::from_secs(60);

/// Runs `call` on a thread of its own, and returns the receiver of its result.
pub fn begin<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (answer, answered) = mpsc::channel();
    std::thread::spawn(move || answer.send(call()));
    answered
}

/// Waits for the result of a call that [`begin`] started.
///
/// # Panics
/// The call does not return within a minute.
pub fn end<T>(answered: &Receiver<T>) -> T {
    answered.recv_timeout(FOREVER).expect("the call never returned")
}
