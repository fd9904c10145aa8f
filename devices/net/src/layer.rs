//! Backends and queues that stand in front of another one.

use std::fmt::Debug;
use std::io;
use std::os::fd::RawFd;

use crate::{
    Backend, Counters, Filter, Frame, LinkState, Mac, Offloads, Pieces, Queue, ReceiveError,
    Received, SendError,
};

/// A backend that passes everything to another one, apart from the queues and perhaps the offloads.
pub trait Layer: Debug + Send + Sync {
    /// Returns the backend behind this one.
    fn inner(&self) -> &dyn Backend;

    /// Returns the offloads of this backend in front of one that has `inner`.
    fn offloads_over(&self, inner: Offloads) -> Offloads {
        inner
    }

    /// Returns the queue in front of `inner`, a queue of the backend behind.
    fn wrap(&self, inner: Box<dyn Queue>) -> Box<dyn Queue>;
}

impl<L: Layer> Backend for L {
    fn queues(&self) -> usize {
        self.inner().queues()
    }

    fn offloads(&self) -> Offloads {
        self.offloads_over(self.inner().offloads())
    }

    fn mtu_limit(&self) -> u32 {
        self.inner().mtu_limit()
    }

    fn queue(&self, index: usize) -> io::Result<Box<dyn Queue>> {
        Ok(self.wrap(self.inner().queue(index)?))
    }

    fn link(&self) -> LinkState {
        self.inner().link()
    }

    fn link_event(&self) -> Option<RawFd> {
        self.inner().link_event()
    }

    fn reconnect(&self) -> io::Result<()> {
        self.inner().reconnect()
    }

    fn set_receive_offloads(&self, offloads: Offloads) -> io::Result<()> {
        self.inner().set_receive_offloads(offloads)
    }

    fn set_mac(&self, mac: Mac) {
        self.inner().set_mac(mac);
    }

    fn set_filter(&self, filter: &Filter) {
        self.inner().set_filter(filter);
    }
}

/// A queue in front of another one. It passes on whatever it does not implement.
pub(crate) trait LayeredQueue: Send {
    /// Returns the queue behind this one.
    fn inner(&self) -> &dyn Queue;

    /// Returns the queue behind this one, for a change.
    fn inner_mut(&mut self) -> &mut dyn Queue;

    /// As [`Queue::send`].
    fn send(&mut self, frame: &Frame<'_>) -> Result<(), SendError>;

    /// As [`Queue::receive`].
    fn receive(&mut self, space: &Pieces<'_>) -> Result<Option<Received>, ReceiveError> {
        self.inner_mut().receive(space)
    }

    /// As [`Queue::has_unsent`].
    fn has_unsent(&self) -> bool {
        self.inner().has_unsent()
    }

    /// As [`Queue::flush`].
    fn flush(&mut self) {
        self.inner_mut().flush();
    }

    /// As [`Queue::counters`].
    fn counters(&self) -> Counters {
        self.inner().counters()
    }
}

impl<Q: LayeredQueue> Queue for Q {
    fn send(&mut self, frame: &Frame<'_>) -> Result<(), SendError> {
        LayeredQueue::send(self, frame)
    }

    fn receive(&mut self, space: &Pieces<'_>) -> Result<Option<Received>, ReceiveError> {
        LayeredQueue::receive(self, space)
    }

    fn event(&self) -> Option<RawFd> {
        self.inner().event()
    }

    fn space_event(&self) -> Option<RawFd> {
        self.inner().space_event()
    }

    fn has_unsent(&self) -> bool {
        LayeredQueue::has_unsent(self)
    }

    fn flush(&mut self) {
        LayeredQueue::flush(self);
    }

    fn counters(&self) -> Counters {
        LayeredQueue::counters(self)
    }
}
