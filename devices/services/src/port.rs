//! The connection between the host's clients and a channel of a service.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::clock::Clock;
use crate::error::ServiceError;
use crate::operation::Operation;
use crate::protocol::{Agreed, Link, ServiceKind};
use crate::saved::SavedService;

/// Maximum number of operations that wait for a channel.
const MAX_QUEUE: usize = 16;

/// The work of a service that no client asks for: heartbeats, time samples, the thaw of a guest
/// whose host has forgotten it. Called on the services' thread, without locks.
pub(crate) trait Background: Send + Sync + fmt::Debug {
    /// Host and guest have agreed on versions.
    fn ready(&self, agreed: Agreed, now: Instant) {
        let _ = (agreed, now);
    }

    /// Returns the time of the next operation.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Returns the operation whose time has come.
    fn operation(&self, now: Instant) -> Option<Box<dyn Operation>> {
        let _ = now;
        None
    }

    /// A response has arrived after its timeout.
    fn late(&self) {}

    /// The guest has closed the channel.
    fn closed(&self) {}

    /// The guest runs again after a pause.
    fn resumed(&self, now: Instant) {
        let _ = now;
    }

    /// Adds the state to save.
    fn save(&self, saved: &mut SavedService) {
        let _ = saved;
    }

    /// Takes over a saved state.
    fn restore(&self, saved: &SavedService) {
        let _ = saved;
    }
}

/// A service without work of its own.
#[derive(Debug)]
pub(crate) struct NoBackground;

impl Background for NoBackground {}

/// The counters of a service. They start at 0 with the machine and never decrease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceCounters {
    /// Requests to the guest.
    pub requests: u64,
    /// Responses to them.
    pub responses: u64,
    /// Requests that the guest did not answer in time.
    pub timeouts: u64,
    /// Responses after the timeout.
    pub late: u64,
    /// Packets of the guest that were ignored.
    pub rejected: u64,
}

/// The state of a service's channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceState {
    /// The guest has not opened the channel.
    Closed,
    /// The guest has not agreed on versions yet.
    Negotiating,
    /// Requests can be sent.
    Ready(Agreed),
    /// The guest does not answer.
    Unresponsive(Agreed),
    /// There is no common version, or the guest's choice was invalid.
    Disabled,
}

/// The connection between clients and a channel.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) kind: ServiceKind,
    pub(crate) clock: Clock,
    pub(crate) background: Arc<dyn Background>,
    state: Mutex<PortState>,
    /// Readable when an operation was queued or the background has changed.
    event: EventFd,
}

/// The state that clients and the channel's handler share.
#[derive(Default)]
pub(crate) struct PortState {
    pub(crate) is_open: bool,
    pub(crate) link: Option<Link>,
    pub(crate) is_unresponsive: bool,
    pub(crate) queue: VecDeque<Queued>,
    pub(crate) counters: ServiceCounters,
    /// The machine runs again after a pause.
    pub(crate) is_resumed: bool,
}

/// An operation that waits.
pub(crate) struct Queued {
    pub(crate) operation: Box<dyn Operation>,
    pub(crate) deadline: Instant,
}

impl fmt::Debug for PortState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortState").field("link", &self.link).finish_non_exhaustive()
    }
}

impl Port {
    /// # Errors
    /// The system is out of file descriptors.
    pub(crate) fn new(
        kind: ServiceKind,
        clock: Clock,
        background: Arc<dyn Background>,
    ) -> io::Result<Self> {
        let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        Ok(Self { kind, clock, background, state: Mutex::default(), event })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, PortState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues an operation, or fails it immediately if the guest cannot answer it. It waits at most
    /// `ready_timeout` for the guest to be ready for it.
    pub(crate) fn submit(&self, operation: Box<dyn Operation>, ready_timeout: Duration) {
        let deadline = self.clock.now() + ready_timeout;
        let mut state = self.lock();
        let error = match state.link {
            _ if !state.is_open => ServiceError::NoDriver(self.kind),
            Some(Link::NoCommonVersion | Link::Invalid) => ServiceError::NoCommonVersion(self.kind),
            _ if state.is_unresponsive => ServiceError::Unresponsive(self.kind),
            _ if state.queue.len() >= MAX_QUEUE => ServiceError::Busy(self.kind),
            _ => {
                state.queue.push_back(Queued { operation, deadline });
                drop(state);
                return self.wake();
            }
        };
        drop(state);
        operation.fail(error);
    }

    /// Wakes the channel's worker.
    pub(crate) fn wake(&self) {
        // A write fails only if the counter is full, and then the event is readable already.
        let _ = self.event.write(1);
    }

    pub(crate) fn clear_event(&self) {
        let _ = self.event.read();
    }

    pub(crate) fn event_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    /// Notes that the machine runs again after a pause.
    pub(crate) fn resumed(&self) {
        self.lock().is_resumed = true;
        self.wake();
    }

    pub(crate) fn state(&self) -> ServiceState {
        let state = self.lock();
        match state.link {
            _ if !state.is_open => ServiceState::Closed,
            Some(Link::Ready(agreed)) if state.is_unresponsive => {
                ServiceState::Unresponsive(agreed)
            }
            Some(Link::Ready(agreed)) => ServiceState::Ready(agreed),
            Some(Link::NoCommonVersion | Link::Invalid) => ServiceState::Disabled,
            Some(Link::Negotiating) | None => ServiceState::Negotiating,
        }
    }

    pub(crate) fn counters(&self) -> ServiceCounters {
        self.lock().counters
    }
}
