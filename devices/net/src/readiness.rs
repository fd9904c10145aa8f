//! One descriptor that is readable when another one is readable or, if asked for, writable.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// An epoll instance around one descriptor.
#[derive(Debug)]
pub(crate) struct Readiness(Epoll);

impl Readiness {
    /// Returns an instance that watches nothing.
    pub(crate) fn new() -> io::Result<Self> {
        Epoll::new().map(Self)
    }

    /// Watches `fd` for data, and for space if `room`. It may be watched already.
    pub(crate) fn watch(&self, fd: RawFd, room: bool) -> io::Result<()> {
        let events = if room { EventSet::IN | EventSet::OUT } else { EventSet::IN };
        let event = EpollEvent::new(events, 0);
        match self.0.ctl(ControlOperation::Add, fd, event) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                self.0.ctl(ControlOperation::Modify, fd, event)
            }
            result => result,
        }
    }

    /// Stops watching `fd`.
    pub(crate) fn unwatch(&self, fd: RawFd) {
        // It fails when the descriptor is not watched, which is what is asked for.
        let _ = self.0.ctl(ControlOperation::Delete, fd, EpollEvent::default());
    }

    /// Returns the descriptor to wait for.
    pub(crate) fn event(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
