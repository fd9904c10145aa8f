//! Requests that may wait for a file: done one after another on a thread of their own, so that the
//! event loop never waits.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender, TryRecvError, TrySendError};
use std::sync::{Arc, OnceLock};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::protocol::{Reply, Request, perform};
use super::{ControlTarget, MAX_CLIENTS};

/// The thread, started by the first request that needs it. It ends when this is dropped and its
/// last request is done.
pub(super) struct Jobs {
    target: Arc<dyn ControlTarget>,
    queue: OnceLock<Option<SyncSender<Job>>>,
    finished: Arc<EventFd>,
}

struct Job {
    request: Request,
    answer: Sender<Reply>,
}

/// Most requests that wait for the one that is worked on: one for each client. Clients that hang up
/// and come back could send any number.
const MAX_WAITING: usize = MAX_CLIENTS;

/// An answer that will come.
pub(super) struct Pending(Receiver<Reply>);

impl Jobs {
    /// Jobs on `target`.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(super) fn new(target: Arc<dyn ControlTarget>) -> io::Result<Self> {
        let finished = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        Ok(Jobs { target, queue: OnceLock::new(), finished })
    }

    /// Who does what need not wait.
    pub(super) fn target(&self) -> &dyn ControlTarget {
        &*self.target
    }

    /// Readable when some job is done; [`Jobs::heard`] clears it.
    pub(super) fn fd(&self) -> RawFd {
        self.finished.as_raw_fd()
    }

    /// Call before the pending answers are looked at.
    pub(super) fn heard(&self) {
        // Nothing to read is no error: another turn has heard of it.
        let _ = self.finished.read();
    }

    /// Takes a request on.
    pub(super) fn start(&self, request: Request) -> Pending {
        let (answer, pending) = mpsc::channel();
        let queue = self
            .queue
            .get_or_init(|| spawn(Arc::clone(&self.target), Arc::clone(&self.finished)).ok());
        // Without a thread `answer` is dropped here, which `Pending::take` tells the client.
        if let Some(queue) = queue
            && let Err(TrySendError::Full(Job { answer, .. })) =
                queue.try_send(Job { request, answer })
        {
            let refusal = "too many requests wait for one that waits for a file; try again later";
            let _ = answer.send(Reply::refused(refusal));
            let _ = self.finished.write(1);
        }
        Pending(pending)
    }
}

impl Pending {
    /// The answer, once it is there.
    pub(super) fn take(&self) -> Option<Reply> {
        match self.0.try_recv() {
            Ok(reply) => Some(reply),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                Some(Reply::refused("the machine could not work on it"))
            }
        }
    }
}

fn spawn(target: Arc<dyn ControlTarget>, finished: Arc<EventFd>) -> io::Result<SyncSender<Job>> {
    let (queue, jobs) = mpsc::sync_channel::<Job>(MAX_WAITING);
    std::thread::Builder::new().name("control".into()).spawn(move || {
        for Job { request, answer } in jobs {
            // A client that has gone needs no answer.
            let _ = answer.send(perform(request, &*target));
            let _ = finished.write(1);
        }
    })?;
    Ok(queue)
}
