//! The socket to a far end that may go away and come back.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::LinkState;
use crate::endpoint::Endpoint;
use crate::link::Link;
use crate::readiness::Readiness;

/// A socket with the state of its link. [`Connection::replace`] puts another socket under the same
/// descriptor, so that its user needs no lock.
#[derive(Debug)]
pub(crate) struct Connection {
    fd: OwnedFd,
    readiness: Readiness,
    link: Link,
    /// The number of replacements. The queue discards partial frames when it changes.
    generation: AtomicU64,
    /// A queue is open, so that the socket is watched while the link is up.
    open: Mutex<bool>,
    /// Held while the link is brought up, so that two threads make one socket.
    reconnecting: Mutex<()>,
    /// The name of the far end, for log lines.
    name: String,
}

impl Connection {
    /// Returns a connection that is up.
    pub(crate) fn up(name: String, socket: OwnedFd) -> io::Result<Self> {
        Self::new(name, socket, LinkState::Up)
    }

    /// Returns a connection that is down until [`Connection::replace`].
    pub(crate) fn down(name: String) -> io::Result<Self> {
        Self::new(name, std::fs::File::open("/dev/null")?.into(), LinkState::Down)
    }

    fn new(name: String, fd: OwnedFd, state: LinkState) -> io::Result<Self> {
        let (readiness, link) = (Readiness::new()?, Link::new(state)?);
        let (generation, open) = (AtomicU64::new(0), Mutex::new(false));
        Ok(Self { fd, readiness, link, generation, open, reconnecting: Mutex::new(()), name })
    }

    /// Watches the socket for a queue that opens.
    pub(crate) fn open(&self) -> io::Result<()> {
        let mut open = self.lock();
        if self.link.is_up() {
            self.readiness.watch(self.fd.as_raw_fd())?;
        }
        *open = true;
        Ok(())
    }

    /// Stops watching for a queue that closes.
    pub(crate) fn close(&self) {
        *self.lock() = false;
        self.readiness.unwatch(self.fd.as_raw_fd());
    }

    /// Puts the socket that `connect` makes in place of the one that is lost. Does nothing while
    /// the link is up.
    pub(crate) fn reconnect(
        &self,
        connect: impl FnOnce() -> io::Result<OwnedFd>,
    ) -> io::Result<()> {
        let _reconnecting = self.reconnecting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_up() { Ok(()) } else { self.replace(&connect()?) }
    }

    fn replace(&self, socket: &OwnedFd) -> io::Result<()> {
        let open = self.lock();
        self.readiness.unwatch(self.fd.as_raw_fd());
        // SAFETY: both descriptors are owned. A call in progress keeps the old socket.
        let replaced =
            unsafe { libc::dup3(socket.as_raw_fd(), self.fd.as_raw_fd(), libc::O_CLOEXEC) };
        if replaced < 0 {
            return Err(io::Error::last_os_error());
        }
        self.generation.fetch_add(1, Ordering::Release);
        if *open {
            self.readiness.watch(self.fd.as_raw_fd())?;
        }
        if self.link.set(LinkState::Up) {
            tracing::info!(peer = self.name, "a network link is up");
        }
        Ok(())
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.link.is_up()
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Returns the event of data to receive.
    pub(crate) fn event(&self) -> RawFd {
        self.readiness.data()
    }

    /// Returns the event of space to send.
    pub(crate) fn space_event(&self) -> RawFd {
        self.readiness.space()
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Endpoint for Connection {
    fn is_gone(&self, error: &io::Error) -> bool {
        matches!(error.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET | libc::ENOTCONN))
    }

    /// The socket stays readable, so nothing watches it.
    fn lost(&self) {
        let _open = self.lock();
        if self.link.set(LinkState::Down) {
            tracing::warn!(peer = self.name, "the far end of a network link is gone");
        }
        self.readiness.unwatch(self.fd.as_raw_fd());
    }
}
