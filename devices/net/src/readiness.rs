//! Descriptors that are readable when other ones are ready.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// The two events of a queue over one descriptor: data to receive, and space to send. The event of
/// space is readable nearly always, so only a queue that waits for space may look at it.
#[derive(Debug)]
pub(crate) struct Readiness {
    data: AnyReady,
    space: AnyReady,
}

/// An epoll instance: one descriptor that is readable when any of others is ready.
#[derive(Debug)]
pub(crate) struct AnyReady(Epoll);

impl Readiness {
    /// Returns events that watch nothing.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { data: AnyReady::new()?, space: AnyReady::new()? })
    }

    /// Watches `fd`, which may be watched already.
    pub(crate) fn watch(&self, fd: RawFd) -> io::Result<()> {
        self.data.watch(fd, EventSet::IN)?;
        self.space.watch(fd, EventSet::OUT)
    }

    /// Stops watching `fd`.
    pub(crate) fn unwatch(&self, fd: RawFd) {
        self.data.unwatch(fd);
        self.space.unwatch(fd);
    }

    /// Returns the event of data.
    pub(crate) fn data(&self) -> RawFd {
        self.data.event()
    }

    /// Returns the event of space.
    pub(crate) fn space(&self) -> RawFd {
        self.space.event()
    }
}

impl AnyReady {
    /// Returns an instance that watches nothing.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(Epoll::new()?))
    }

    /// Returns an instance that watches whether any of `fds` is readable.
    pub(crate) fn readable(fds: impl IntoIterator<Item = RawFd>) -> io::Result<Self> {
        let any = Self::new()?;
        fds.into_iter().try_for_each(|fd| any.watch(fd, EventSet::IN))?;
        Ok(any)
    }

    /// Returns the descriptor to wait for.
    pub(crate) fn event(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    fn watch(&self, fd: RawFd, events: EventSet) -> io::Result<()> {
        match self.0.ctl(ControlOperation::Add, fd, EpollEvent::new(events, 0)) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            result => result,
        }
    }

    fn unwatch(&self, fd: RawFd) {
        // It fails when the descriptor is not watched: nothing is to be done then.
        let _ = self.0.ctl(ControlOperation::Delete, fd, EpollEvent::default());
    }
}
