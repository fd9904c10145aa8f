//! User-mode networking by passt: a process that turns frames into sockets of the host, without
//! privilege. It serves DHCP, DNS and router advertisements to the guest.
//!
//! Frames go through a Unix stream socket, each after its length in 4 bytes, big-endian (QEMU's
//! `-netdev stream`; passt(1), `tap.c` of passt).

mod child;
mod forward;
mod restarts;
mod stream;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::claim::Claims;
use crate::connection::Connection;
use crate::counted::Counted;
use crate::{Backend, LinkState, Offloads, Queue, socket};
use child::Running;
pub use child::{Forward, PasstOptions, Protocol};
pub use forward::ParseForwardError;
use restarts::Restarts;
use stream::{Kept, StreamQueue};

/// The largest MTU of passt: its limit of 65,535 bytes for a frame, in whole words.
const MTU: u32 = 65_520;

/// A connection to passt. It has one queue and no offloads:
/// [`SoftwareOffload`](crate::software::SoftwareOffload) adds them.
///
/// The link is down when passt has ended; [`Backend::reconnect`] starts it or connects again.
#[derive(Debug)]
pub struct Passt {
    connection: Arc<Connection>,
    claims: Claims,
    kept: Kept,
    far_end: FarEnd,
}

/// How a link comes back.
#[derive(Debug)]
enum FarEnd {
    /// It does not.
    Given,
    /// This process connects to the path.
    Path(PathBuf),
    /// This process starts the child again.
    Child { options: PasstOptions, state: Mutex<(Running, Restarts)> },
}

impl Passt {
    /// Starts passt as a child. It ends when the backend is dropped.
    ///
    /// # Errors
    /// The program cannot be started. That it refuses its options shows later: the link goes down.
    pub fn spawn(options: PasstOptions) -> io::Result<Self> {
        let (running, socket) = child::start(&options)?;
        let connection = Connection::up("passt".into(), socket)?;
        Ok(Self::over(
            connection,
            FarEnd::Child { options, state: Mutex::new((running, Restarts::new(Instant::now()))) },
        ))
    }

    /// Connects to a passt that listens at `path` (its option `--socket`).
    ///
    /// # Errors
    /// The system's; none listens there, for example.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = socket::connect(path, libc::SOCK_STREAM)?;
        let connection = Connection::up(path.display().to_string(), socket)?;
        Ok(Self::over(connection, FarEnd::Path(path.into())))
    }

    /// Takes a connected Unix stream socket that another process opened. A link that goes down
    /// stays down.
    ///
    /// # Errors
    /// `InvalidInput`: it is none. Else the system's error.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        if socket::option(&fd, libc::SO_TYPE)? != libc::SOCK_STREAM {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no stream socket"));
        }
        Ok(Self::over(Connection::up("a socket".into(), fd)?, FarEnd::Given))
    }

    fn over(connection: Connection, far_end: FarEnd) -> Self {
        let kept = Kept::default();
        Self { connection: Arc::new(connection), claims: Claims::new(1), kept, far_end }
    }
}

impl Backend for Passt {
    fn offloads(&self) -> Offloads {
        Offloads::empty()
    }

    fn mtu_limit(&self) -> u32 {
        MTU
    }

    fn queue(&self, index: usize) -> io::Result<Box<dyn Queue>> {
        let claim = self.claims.claim(index)?;
        let queue = StreamQueue::open(Arc::clone(&self.connection), &self.kept)?;
        Ok(Counted::boxed(queue, claim))
    }

    fn link(&self) -> LinkState {
        self.connection.link().take()
    }

    fn link_event(&self) -> Option<RawFd> {
        Some(self.connection.link().event())
    }

    fn reconnect(&self) -> io::Result<()> {
        self.connection.reconnect(|| match &self.far_end {
            FarEnd::Given => Err(io::ErrorKind::Unsupported.into()),
            FarEnd::Path(path) => socket::connect(path, libc::SOCK_STREAM),
            FarEnd::Child { options, state } => {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                let (running, restarts) = &mut *state;
                if !restarts.may_start(Instant::now()) {
                    let text = "passt ended shortly after its start; it is started again later";
                    return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
                }
                let (next, socket) = child::start(options)?;
                // The one before has ended, or ends now.
                *running = next;
                Ok(socket)
            }
        })
    }
}
