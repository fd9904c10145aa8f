//! Requests that may wait. Those that wait for a file run one after another on their own thread;
//! those that wait for the guest are answered by its services' thread. So the event loop never
//! waits.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender, TryRecvError, TrySendError};
use std::sync::{Arc, OnceLock};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::protocol::{Reply, Request, perform};
use super::responder::{Answer, Responder};
use super::{ControlTarget, MAX_CLIENTS};
use crate::services::ServiceRequest;

/// The thread, which starts with the first request that needs it. It ends when this is dropped and
/// its last request is done.
pub(super) struct Jobs {
    target: Arc<dyn ControlTarget>,
    queue: OnceLock<Option<SyncSender<Job>>>,
    finished: Arc<EventFd>,
}

struct Job {
    request: Request,
    answer: Sender<Answer>,
}

/// Limit of requests that wait for the running one: one per client. Clients that reconnect could
/// otherwise queue any number.
const MAX_WAITING: usize = MAX_CLIENTS;

/// An answer in progress.
pub(super) struct Pending(Receiver<Answer>);

impl Jobs {
    /// Returns a queue for requests to `target`.
    ///
    /// # Errors
    /// No file descriptor is available.
    pub(super) fn new(target: Arc<dyn ControlTarget>) -> io::Result<Self> {
        let finished = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        Ok(Jobs { target, queue: OnceLock::new(), finished })
    }

    /// Returns the target, for requests that need not wait.
    pub(super) fn target(&self) -> &dyn ControlTarget {
        &*self.target
    }

    /// Returns the descriptor that becomes readable when a request is done; [`Jobs::heard`] clears
    /// it.
    pub(super) fn fd(&self) -> RawFd {
        self.finished.as_raw_fd()
    }

    /// Clears the descriptor. Must be called before the pending answers are checked.
    pub(super) fn heard(&self) {
        // An empty eventfd is no error: another call has cleared it.
        let _ = self.finished.read();
    }

    /// Queues a request.
    pub(super) fn start(&self, request: Request) -> Pending {
        let (answer, pending) = mpsc::channel();
        let queue = self
            .queue
            .get_or_init(|| spawn(Arc::clone(&self.target), Arc::clone(&self.finished)).ok());
        // Without a thread `answer` is dropped here, and `Pending::take` returns a refusal.
        if let Some(queue) = queue
            && let Err(TrySendError::Full(Job { answer, .. })) =
                queue.try_send(Job { request, answer })
        {
            let refusal =
                "too many requests wait for a request that accesses a file; try again later";
            let _ = answer.send(Reply::refused(refusal).into());
            let _ = self.finished.write(1);
        }
        Pending(pending)
    }

    /// Passes a request to the guest's services, which answer it later.
    pub(super) fn ask_guest(&self, request: ServiceRequest) -> Pending {
        let (answer, pending) = mpsc::channel();
        let finished = Arc::clone(&self.finished);
        self.target.service(request, Responder::new(answer, finished));
        Pending(pending)
    }
}

impl Pending {
    /// Returns the answer if the request is done.
    pub(super) fn take(&self) -> Option<Answer> {
        match self.0.try_recv() {
            Ok(answer) => Some(answer),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                Some(Reply::refused("the machine could not process the request").into())
            }
        }
    }
}

fn spawn(target: Arc<dyn ControlTarget>, finished: Arc<EventFd>) -> io::Result<SyncSender<Job>> {
    let (queue, jobs) = mpsc::sync_channel::<Job>(MAX_WAITING);
    std::thread::Builder::new().name("control".into()).spawn(move || {
        for Job { request, answer } in jobs {
            // The send fails if the client has disconnected.
            let _ = answer.send(perform(request, &*target).into());
            let _ = finished.write(1);
        }
    })?;
    Ok(queue)
}
