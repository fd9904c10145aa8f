//! One descriptor that is readable when another one is readable or, if asked for, writable.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// An epoll instance around one descriptor.
#[derive(Debug)]
pub(crate) struct Readiness {
    epoll: Epoll,
    /// The descriptor is watched for space too.
    space: AtomicBool,
}

impl Readiness {
    /// Returns an instance that watches nothing.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { epoll: Epoll::new()?, space: AtomicBool::new(false) })
    }

    /// Watches `fd` for data, and for space if `space`. It may be watched already.
    pub(crate) fn watch(&self, fd: RawFd, space: bool) -> io::Result<()> {
        let events = if space { EventSet::IN | EventSet::OUT } else { EventSet::IN };
        let event = EpollEvent::new(events, 0);
        match self.epoll.ctl(ControlOperation::Add, fd, event) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                self.epoll.ctl(ControlOperation::Modify, fd, event)?;
            }
            result => result?,
        }
        self.space.store(space, Ordering::Relaxed);
        Ok(())
    }

    /// Returns whether the descriptor is watched for space. A queue asks at each frame, so that it
    /// makes a call only for a change.
    pub(crate) fn watches_space(&self) -> bool {
        self.space.load(Ordering::Relaxed)
    }

    /// Stops watching `fd`.
    pub(crate) fn unwatch(&self, fd: RawFd) {
        // It fails when the descriptor is not watched: nothing is to be done then.
        let _ = self.epoll.ctl(ControlOperation::Delete, fd, EpollEvent::default());
        self.space.store(false, Ordering::Relaxed);
    }

    /// Returns the descriptor to wait for.
    pub(crate) fn event(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}
