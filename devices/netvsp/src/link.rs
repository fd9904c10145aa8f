//! The link of a card: its state, the thread that watches the backend's, and the indications to
//! the guest.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use synthvm_net::{Backend, LinkState};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};
use vmm_sys_util::timerfd::TimerFd;

use crate::protocol::oid::Link;
use crate::protocol::rndis::{ControlMessage, LinkDecision, LinkEvents, LinkIndication};

/// Returns the time since any fixed moment.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Interval of attempts to bring a backend's link up.
const RECONNECT_INTERVAL_MS: i32 = 1000;

/// The state of a card's link.
#[derive(Debug)]
pub(crate) struct CardLink {
    is_up: AtomicBool,
    changes: AtomicU32,
}

impl CardLink {
    /// Returns the link of a card over a backend in `state`.
    pub(crate) fn new(state: LinkState) -> Self {
        Self { is_up: AtomicBool::new(state == LinkState::Up), changes: AtomicU32::new(0) }
    }

    /// Returns true if frames pass. A backend without link drops them.
    pub(crate) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Acquire)
    }

    /// Notes the state of the backend's link. Returns true if it changed.
    pub(crate) fn set_backend(&self, state: LinkState) -> bool {
        let is_up = state == LinkState::Up;
        let has_changed = self.is_up.swap(is_up, Ordering::AcqRel) != is_up;
        if has_changed {
            self.changes.fetch_add(1, Ordering::AcqRel);
        }
        has_changed
    }

    /// Returns the number of changes so far.
    #[inline]
    pub(crate) fn changes(&self) -> u32 {
        self.changes.load(Ordering::Acquire)
    }
}

/// A thread that watches the link of a card's backend, and tries to bring it up while it is down.
/// It ends soon after the monitor is dropped.
#[derive(Debug)]
pub(crate) struct LinkMonitor {
    stop: EventFd,
}

impl LinkMonitor {
    /// Starts the thread, which calls `check` after each change. It ends if that returns false:
    /// the card is gone. `None`: the backend's link never changes.
    ///
    /// # Errors
    /// The system is out of file descriptors or threads.
    pub(crate) fn start(
        backend: Arc<dyn Backend>,
        check: impl Fn() -> bool + Send + 'static,
    ) -> io::Result<Option<Self>> {
        let Some(event) = backend.link_event() else { return Ok(None) };
        let stop = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        let epoll = Epoll::new()?;
        for fd in [event, stop.as_raw_fd()] {
            let wanted = EpollEvent::new(EventSet::IN, fd as u64);
            epoll.ctl(ControlOperation::Add, fd, wanted)?;
        }
        let stopped = stop.try_clone()?;
        thread::Builder::new()
            .name("net-link".to_owned())
            .spawn(move || watch(&check, &*backend, &epoll, &stopped))?;
        Ok(Some(Self { stop }))
    }
}

impl Drop for LinkMonitor {
    fn drop(&mut self) {
        // It fails only when the counter is full: the event is readable then.
        let _ = self.stop.write(1);
    }
}

fn watch(check: &dyn Fn() -> bool, backend: &dyn Backend, epoll: &Epoll, stop: &EventFd) {
    // It fails while the monitor exists.
    while stop.read().is_err() && check() {
        let timeout = match backend.reconnect() {
            Ok(()) => -1,
            Err(error) => {
                tracing::debug!(%error, "the link of a network card stays down");
                RECONNECT_INTERVAL_MS
            }
        };
        // An error ends the wait early, and a signal may.
        let _ = epoll.wait(timeout, &mut [EpollEvent::default()]);
    }
}

/// Indications of the link to the guest, with time between them.
pub(crate) struct LinkReporter {
    /// `None` until the guest has sent INITIALIZE.
    events: Option<LinkEvents>,
    clock: Clock,
    /// Readable when a change must be reported that came too early.
    timer: TimerFd,
    /// The time of the clock when that is.
    due: Option<Duration>,
    /// A change may have to be reported.
    is_pending: bool,
    /// The state of the link that the guest knows.
    is_reported_up: bool,
}

impl LinkReporter {
    /// Returns a reporter that reports nothing.
    ///
    /// # Errors
    /// The system is out of file descriptors.
    pub(crate) fn new(clock: Clock) -> io::Result<Self> {
        Ok(Self {
            events: None,
            clock,
            timer: TimerFd::new()?,
            due: None,
            is_pending: false,
            is_reported_up: true,
        })
    }

    /// Reports changes from now on. Queries have reported `link`.
    pub(crate) fn begin(&mut self, link: Link) {
        self.events = Some(LinkEvents::new(link));
        self.is_reported_up = link.is_up;
    }

    /// Reports nothing any more.
    pub(crate) fn end(&mut self) {
        self.events = None;
    }

    /// Returns the state of the link that the guest knows. `None`: reports have not begun.
    pub(crate) fn reported(&self) -> Option<bool> {
        self.events.as_ref().map(|_| self.is_reported_up)
    }

    /// Notes that the link may have changed.
    pub(crate) fn note_change(&mut self) {
        self.is_pending = true;
    }

    /// Returns true if [`LinkReporter::report`] may have a message.
    #[inline]
    pub(crate) fn is_pending(&self) -> bool {
        self.is_pending
    }

    /// Returns a message to the guest if it must learn of `link` now. `may_change_speed`: see
    /// [`LinkEvents::poll`].
    pub(crate) fn report(&mut self, link: Link, may_change_speed: bool) -> Option<ControlMessage> {
        let now = (self.clock)();
        if self.due.is_some_and(|due| now < due) {
            return None;
        }
        if self.due.take().is_some() {
            // It also makes the timer unreadable.
            let _ = self.timer.clear();
        }
        self.is_pending = false;
        let events = self.events.as_mut()?;
        match events.poll(now, link, may_change_speed) {
            LinkDecision::UpToDate => None,
            LinkDecision::Send(indication) => {
                self.is_pending = true;
                match indication {
                    LinkIndication::Up => self.is_reported_up = true,
                    LinkIndication::Down => self.is_reported_up = false,
                    LinkIndication::Speed(_) => {}
                }
                Some(indication.message())
            }
            LinkDecision::Wait(time) => {
                self.is_pending = true;
                self.due = Some(now + time);
                // Without a timer, the change is reported in some later round.
                let _ = self.timer.reset(time, None);
                None
            }
        }
    }

    /// Returns the event that wakes the channel for a pending report.
    pub(crate) fn event(&self) -> Option<RawFd> {
        self.is_pending.then(|| self.timer.as_raw_fd())
    }
}
