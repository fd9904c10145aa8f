//! Removed disks until they are durable and closed: a thread for each, so that neither a timeout
//! nor the end of the machine leaves one without its last flush.

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

/// All removals of a machine. Clones share them.
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
    /// Removals whose disk is not flushed and closed yet.
    pending: usize,
    /// The first removal that failed after its caller had given up waiting.
    failure: Option<DiskError>,
}

/// A disk or a drive that its controller does not have any more.
#[derive(Debug)]
pub(super) struct Removed {
    /// Flushed and closed at the end; a drive has none, as discs are never written.
    pub(super) image: Option<Arc<dyn Backend>>,
    /// Each ends when the last worker has dropped its view of an image: its requests have ended.
    pub(super) in_use: Vec<Unused>,
}

/// A removal whose thread waits for the disk.
#[derive(Debug)]
pub(super) struct Removal {
    id: String,
    begin: Sender<Removed>,
    outcome: Arc<Outcome>,
}

/// Says how a removal ended: to its caller, or to the log when that has gone.
#[derive(Debug, Default)]
struct Outcome {
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Debug, Default)]
enum Progress {
    #[default]
    Pending,
    /// The caller does not wait any more.
    Abandoned,
    Ended(Result<(), IoError>),
}

impl Removals {
    /// Starts the thread of a removal, before anything is removed. Dropping what this returns calls
    /// it off.
    ///
    /// # Errors
    /// No thread is left.
    pub(super) fn prepare(&self, id: &str) -> io::Result<Removal> {
        let (begin, begun) = mpsc::channel::<Removed>();
        let outcome = Arc::new(Outcome::default());
        let (told, name) = (Arc::clone(&outcome), id.to_owned());
        // Counted before the disk is removed, so that the end of the machine cannot miss it in
        // between.
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

    /// Waits until every removed disk is flushed and closed. Only once no guest can have requests
    /// on one.
    ///
    /// # Errors
    /// The first that failed since its caller had given up waiting for it.
    pub(super) fn wait(&self) -> Result<(), DiskError> {
        let state = self.shared.lock();
        let waited = self.shared.changed.wait_while(state, |state| state.pending != 0);
        waited.unwrap_or_else(PoisonError::into_inner).failure.take().map_or(Ok(()), Err)
    }
}

impl Removal {
    /// Hands `removed` to the thread. Returns when it is flushed and closed, or after `timeout`;
    /// then the thread goes on, and says in the log how it ended.
    ///
    /// # Errors
    /// The time is over; or the disk could not be flushed.
    pub(super) fn run(self, removed: Removed, timeout: Duration) -> Result<(), DiskError> {
        let Removal { id, begin, outcome } = self;
        // The thread waits for it: it cannot have ended.
        let _ = begin.send(removed);
        match outcome.wait(timeout) {
            Some(result) => result.map_err(|error| DiskError::Flush { id, error }),
            None => Err(DiskError::Busy(id, timeout.as_secs())),
        }
    }
}

/// A removal, as long as its thread has not ended.
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

    /// The removal has ended. Returns a failure that no caller gets to know.
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

    /// Waits for the end. `None` after `timeout`: from then on the log is told.
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

/// Waits for the last requests, then makes durable what they wrote, and closes the image.
fn finish(removed: Removed) -> Result<(), IoError> {
    for in_use in removed.in_use {
        // Nothing is ever sent: this ends when the other end is dropped.
        let _ = in_use.recv();
    }
    removed.image.map_or(Ok(()), |image| block::flush(&*image))
}
