//! Removal of disks. A thread for each removed disk waits for its requests, flushes and closes it,
//! so that the disk is flushed even after a timeout or at the end of the machine.

use std::io;
use std::mem;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use synthvm_block::{self as block, Backend, IoError};
use tracing::{error, info};

use super::DiskError;
use super::medium::Unused;

/// All removals of a machine. Clones share the same state.
#[derive(Clone, Debug, Default)]
pub(super) struct Removals {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Number of removed disks that are not flushed and closed yet.
    pending: usize,
    /// The error of the first removal that failed after its caller's timeout.
    failure: Option<DiskError>,
}

/// A disk or a drive that was removed from its controller.
#[derive(Debug)]
pub(super) struct Removed {
    /// The backend to flush and close; `None` for a drive, as discs are read-only.
    pub(super) image: Option<Arc<dyn Backend>>,
    /// Drop notifiers. Each disconnects when the last worker has dropped its view of an image,
    /// which is after its last request.
    pub(super) in_use: Vec<Unused>,
}

/// A prepared removal. Its thread waits for [`Removal::run`].
#[derive(Debug)]
pub(super) struct Removal {
    id: String,
    begin: Sender<Removed>,
    outcome: Arc<Outcome>,
}

/// The result of a removal. Its caller gets it; after the caller's timeout the log does.
#[derive(Debug, Default)]
struct Outcome {
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Debug, Default)]
enum Progress {
    #[default]
    Pending,
    /// The caller's wait has timed out.
    Abandoned,
    Ended(Result<(), IoError>),
}

impl Removals {
    /// Starts the thread of a removal, before anything is removed. Dropping the returned value
    /// cancels the removal.
    ///
    /// # Errors
    /// The thread cannot be created.
    pub(super) fn prepare(&self, id: &str) -> io::Result<Removal> {
        let (begin, begun) = mpsc::channel::<Removed>();
        let outcome = Arc::new(Outcome::default());
        let (told, name) = (Arc::clone(&outcome), id.to_owned());
        // Counted before the disk is removed, so that `wait` at the end of the machine includes it.
        let pending = Pending::new(&self.shared);
        thread::Builder::new().name("disk-removal".to_owned()).spawn(move || {
            if let Ok(removed) = begun.recv()
                && let Some(failure) = told.end(&name, finish(removed))
            {
                pending.shared.lock().failure.get_or_insert(failure);
            }
        })?;
        Ok(Removal { id: id.to_owned(), begin, outcome })
    }

    /// Waits until every removed disk is flushed and closed. To be called when no guest can have
    /// requests in flight.
    ///
    /// # Errors
    /// The first failure after its caller's timeout.
    pub(super) fn wait(&self) -> Result<(), DiskError> {
        let state = self.shared.lock();
        let waited = self.shared.changed.wait_while(state, |state| state.pending != 0);
        waited.unwrap_or_else(PoisonError::into_inner).failure.take().map_or(Ok(()), Err)
    }
}

impl Removal {
    /// Hands `removed` to the thread. Returns when the disk is flushed and closed, or after
    /// `timeout`. After the timeout the thread continues and logs the result.
    ///
    /// # Errors
    /// The timeout has passed, or the disk could not be flushed.
    pub(super) fn run(self, removed: Removed, timeout: Duration) -> Result<(), DiskError> {
        let Removal { id, begin, outcome } = self;
        // Cannot fail: the thread is waiting for this message.
        let _ = begin.send(removed);
        match outcome.wait(timeout) {
            Some(result) => result.map_err(|error| DiskError::Flush { id, error }),
            None => Err(DiskError::Busy(id, timeout.as_secs())),
        }
    }
}

/// Counts a removal as pending until its thread ends.
struct Pending {
    shared: Arc<Shared>,
}

impl Pending {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.lock().pending += 1;
        Pending { shared: Arc::clone(shared) }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.shared.lock().pending -= 1;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outcome {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the result. Returns a failure that the caller does not see after its timeout.
    fn end(&self, id: &str, result: Result<(), IoError>) -> Option<DiskError> {
        let mut progress = self.lock();
        let before = mem::replace(&mut *progress, Progress::Ended(result));
        self.changed.notify_all();
        drop(progress);
        if !matches!(before, Progress::Abandoned) {
            return None;
        }
        match result {
            Ok(()) => {
                info!(id, "a removed disk's last requests have ended; it is flushed and closed");
                None
            }
            Err(error) => {
                let failure = DiskError::Flush { id: id.to_owned(), error };
                error!("{failure}");
                Some(failure)
            }
        }
    }

    /// Waits for the result. `None` after `timeout`; the thread then logs the result.
    fn wait(&self, timeout: Duration) -> Option<Result<(), IoError>> {
        let pending = |progress: &mut Progress| matches!(progress, Progress::Pending);
        let waited = self.changed.wait_timeout_while(self.lock(), timeout, pending);
        let (mut progress, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match *progress {
            Progress::Ended(result) => Some(result),
            Progress::Pending | Progress::Abandoned => {
                *progress = Progress::Abandoned;
                None
            }
        }
    }
}

/// Waits for the last requests, flushes the image, and closes it.
fn finish(removed: Removed) -> Result<(), IoError> {
    for in_use in removed.in_use {
        // No message is ever sent: `recv` fails when the sender is dropped.
        let _ = in_use.recv();
    }
    removed.image.map_or(Ok(()), |image| block::flush(&*image))
}
