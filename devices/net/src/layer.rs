//! Backends that stand in front of another one.

use std::fmt::Debug;
use std::io;
use std::os::fd::RawFd;

use crate::{Backend, Filter, LinkState, Mac, Offloads, Queue};

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
