//! Merges several events into one, for backends that wrap others.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// An event that is readable while any of its sources is.
#[derive(Debug)]
pub(super) struct MergedEvent {
    epoll: Epoll,
}

impl MergedEvent {
    /// Merges `sources`, which must stay open for the life of the event.
    ///
    /// # Errors
    /// The system is out of file descriptors or memory.
    pub(super) fn new(sources: impl IntoIterator<Item = RawFd>) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        for source in sources {
            epoll.ctl(ControlOperation::Add, source, EpollEvent::new(EventSet::IN, 0))?;
        }
        Ok(Self { epoll })
    }

    pub(super) fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}
