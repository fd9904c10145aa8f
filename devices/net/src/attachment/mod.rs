//! A card's attachment to its backend: a link that the user can take down, and counters that any
//! thread can read.

mod queue;
#[cfg(test)]
mod tests;
mod totals;

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::readiness::AnyReady;
use crate::{Backend, Filter, LinkState, Mac, Offloads, Queue};
use queue::AttachedQueue;
pub use totals::QueueReport;
use totals::Totals;

/// Passes frames to another backend while the user has the link up. Each queue counts into totals
/// that grow over all its uses, and cost no lock.
///
/// A link that the user took down drops the frames of both directions, like a cable that is
/// unplugged.
#[derive(Debug)]
pub struct Attachment {
    inner: Arc<dyn Backend>,
    mtu: u32,
    plug: Arc<Plug>,
    totals: Arc<[Totals]>,
    /// Readable when `event` or the event of `inner` is.
    changes: AnyReady,
    event: EventFd,
    /// The state that [`Backend::link`] returned last.
    seen: AtomicBool,
}

/// The state that the user chose.
#[derive(Debug)]
struct Plug(AtomicBool);

impl Plug {
    fn is_in(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Attachment {
    /// Returns `inner` with the link in the state `link`, and counters of 0.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new(inner: Arc<dyn Backend>, link: LinkState) -> io::Result<Self> {
        let event = EventFd::new(EFD_NONBLOCK)?;
        let changes =
            AnyReady::readable(inner.link_event().into_iter().chain([event.as_raw_fd()]))?;
        let totals = (0..inner.queues()).map(|_| Totals::default()).collect();
        let plug = Arc::new(Plug(AtomicBool::new(link == LinkState::Up)));
        let attachment = Self {
            inner,
            mtu: u32::MAX,
            plug,
            totals,
            changes,
            event,
            seen: AtomicBool::new(false),
        };
        attachment.link();
        Ok(attachment)
    }

    /// Returns the same backend, whose largest MTU is `mtu` if the backend behind has a larger one.
    #[must_use]
    pub fn with_mtu(mut self, mtu: u32) -> Self {
        self.mtu = mtu;
        self
    }

    /// Takes the link down, or lets the backend's own state count again.
    pub fn set_link(&self, link: LinkState) {
        self.plug.0.store(link == LinkState::Up, Ordering::Release);
        self.signal_change(self.inner.link());
    }

    /// Returns the state of the link, as [`Backend::link`] does, and leaves a pending change
    /// pending.
    pub fn link_state(&self) -> LinkState {
        self.signal_change(self.inner.link())
    }

    /// Returns the state that the user chose.
    pub fn chosen_link(&self) -> LinkState {
        state(self.plug.is_in())
    }

    /// Returns the totals of each queue.
    pub fn queue_reports(&self) -> Vec<QueueReport> {
        self.totals.iter().map(Totals::report).collect()
    }

    /// Signals a change that [`Backend::link`] has not returned: the call that read the state of
    /// the backend, `inner`, has cleared its event. Returns the state of the link.
    fn signal_change(&self, inner: LinkState) -> LinkState {
        let is_up = self.is_up(inner);
        if is_up != self.seen.load(Ordering::Acquire) {
            // It fails only when the counter is full: the event is readable then.
            let _ = self.event.write(1);
        }
        state(is_up)
    }

    fn is_up(&self, inner: LinkState) -> bool {
        inner == LinkState::Up && self.plug.is_in()
    }
}

impl Backend for Attachment {
    fn queues(&self) -> usize {
        self.inner.queues()
    }

    fn offloads(&self) -> Offloads {
        self.inner.offloads()
    }

    fn mtu_limit(&self) -> u32 {
        self.inner.mtu_limit().min(self.mtu)
    }

    fn queue(&self, index: usize) -> io::Result<Box<dyn Queue>> {
        if index >= self.totals.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let inner = self.inner.queue(index)?;
        let (plug, totals) = (Arc::clone(&self.plug), Arc::clone(&self.totals));
        Ok(Box::new(AttachedQueue::new(inner, plug, totals, index)))
    }

    fn link(&self) -> LinkState {
        // Cleared before the state is read: a change after it is signalled again.
        let _ = self.event.read();
        let is_up = self.is_up(self.inner.link());
        self.seen.store(is_up, Ordering::Release);
        state(is_up)
    }

    fn link_event(&self) -> Option<RawFd> {
        Some(self.changes.event())
    }

    fn reconnect(&self) -> io::Result<()> {
        self.inner.reconnect()
    }

    fn set_receive_offloads(&self, offloads: Offloads) -> io::Result<()> {
        self.inner.set_receive_offloads(offloads)
    }

    fn set_mac(&self, mac: Mac) {
        self.inner.set_mac(mac);
    }

    fn set_filter(&self, filter: &Filter) {
        self.inner.set_filter(filter);
    }
}

fn state(is_up: bool) -> LinkState {
    if is_up { LinkState::Up } else { LinkState::Down }
}
