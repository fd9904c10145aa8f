//! The thread that makes changes of the variables file durable soon after they were made, so that a
//! loss of power costs at most the changes of the last moments. No vCPU waits for it.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tracing::warn;
use vmbus_log::LogRateLimiter;

/// Makes a file durable, in the thread.
pub(super) type Sync = Box<dyn FnMut() -> io::Result<()> + Send>;

/// A file that is made durable on request, one fsync at a time. Dropping it waits for the last one.
pub(super) struct Syncer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_requested: bool,
    is_ending: bool,
}

impl Syncer {
    /// Starts the thread. `name` is the file's name in the log.
    ///
    /// # Errors
    /// No thread is available.
    pub(super) fn start(name: String, sync: Sync) -> io::Result<Syncer> {
        let shared = Arc::<Shared>::default();
        let thread = std::thread::Builder::new().name("firmware-vars".into()).spawn({
            let shared = Arc::clone(&shared);
            move || run(&shared, &name, sync)
        })?;
        Ok(Syncer { shared, thread: Some(thread) })
    }

    /// Requests that all earlier changes become durable. Returns at once.
    pub(super) fn request(&self) {
        self.shared.lock().is_requested = true;
        self.shared.changed.notify_one();
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.shared.lock().is_ending = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a request. Returns whether there is one; otherwise the thread ends.
    fn wait(&self) -> bool {
        let mut state = self.lock();
        while !state.is_requested && !state.is_ending {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::take(&mut state.is_requested)
    }
}

fn run(shared: &Shared, name: &str, mut sync: Sync) {
    let log = LogRateLimiter::default();
    while shared.wait() {
        if let Err(error) = sync() {
            log.log(|suppressed| {
                warn!(suppressed, "{name}: firmware variables may be lost: {error}");
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn test_requests_during_a_sync_cause_one_more_and_the_end_waits_for_it() {
        let (begun, begins) = mpsc::channel();
        let (go, goes) = mpsc::channel::<()>();
        let sync = move || {
            begun.send(()).unwrap();
            goes.recv().map_err(io::Error::other)
        };
        let syncer = Syncer::start("vars".into(), Box::new(sync)).unwrap();
        syncer.request();
        begins.recv().unwrap();
        for _ in 0..10 {
            syncer.request();
        }
        go.send(()).unwrap();
        begins.recv().unwrap();
        go.send(()).unwrap();
        syncer.request();
        begins.recv().unwrap();
        // An fsync that fails ends neither the thread nor later requests.
        drop(go);
        syncer.request();
        drop(syncer);
        assert_eq!(begins.iter().count(), 1);
    }
}
