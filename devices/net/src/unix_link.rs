//! A cable between two processes: one frame in each message of a Unix seqpacket socket.

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::claim::Claims;
use crate::connection::Connection;
use crate::counted::{Counted, Uncounted};
use crate::endpoint::Endpoint;
use crate::vectored::{Kind, Vectors};
use crate::{
    Backend, Counters, Frame, LinkState, MAX_FRAME, MIN_FRAME, Offloads, Pieces, Queue,
    ReceiveError, Received, SendError, VnetHeader, socket,
};

/// One end of a cable between two virtual machines. It has no offloads:
/// [`SoftwareOffload`](crate::software::SoftwareOffload) adds them. A peer that takes no frames
/// makes its sender's queue full.
#[derive(Debug)]
pub struct UnixLink {
    connection: Arc<Connection>,
    claims: Claims,
    far_end: FarEnd,
}

/// How a link comes back.
#[derive(Debug)]
enum FarEnd {
    /// It does not.
    Given,
    /// This process connects to the path.
    Path(PathBuf),
    /// The peer connects to this socket at this path.
    Listener(OwnedFd, PathBuf),
}

impl UnixLink {
    /// Returns both ends of a cable.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = socket::pair(libc::SOCK_SEQPACKET)?;
        Ok((Self::from_fd(a)?, Self::from_fd(b)?))
    }

    /// Takes a connected Unix seqpacket socket that another process opened. A link that goes down
    /// stays down.
    ///
    /// # Errors
    /// `InvalidInput`: it is none. Else the system's error.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        if socket::option(&fd, libc::SO_TYPE)? != libc::SOCK_SEQPACKET {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no seqpacket socket"));
        }
        Ok(Self::over(Connection::up("a socket".into(), fd)?, FarEnd::Given))
    }

    /// Connects to the peer that listens at `path`.
    ///
    /// # Errors
    /// The system's; none listens there, for example.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = socket::connect(path, libc::SOCK_SEQPACKET)?;
        let connection = Connection::up(path.display().to_string(), socket)?;
        Ok(Self::over(connection, FarEnd::Path(path.into())))
    }

    /// Listens at `path`, which must not exist and is removed on drop. The link is down until
    /// [`Backend::reconnect`] finds a peer that has connected.
    ///
    /// # Errors
    /// The system's; the path exists, for example.
    pub fn listen(path: &Path) -> io::Result<Self> {
        let listener = socket::listen(path, libc::SOCK_SEQPACKET)?;
        let connection = Connection::down(path.display().to_string())?;
        Ok(Self::over(connection, FarEnd::Listener(listener, path.into())))
    }

    fn over(connection: Connection, far_end: FarEnd) -> Self {
        Self { connection: Arc::new(connection), claims: Claims::new(1), far_end }
    }
}

impl Drop for UnixLink {
    fn drop(&mut self) {
        if let FarEnd::Listener(_, path) = &self.far_end {
            // It fails when another process removed the socket, or in a sandbox.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Backend for UnixLink {
    fn offloads(&self) -> Offloads {
        Offloads::empty()
    }

    fn queue(&self, index: usize) -> io::Result<Box<dyn Queue>> {
        let claim = self.claims.claim(index)?;
        self.connection.open()?;
        let connection = Arc::clone(&self.connection);
        let queue = LinkQueue { connection, vectors: Vectors::default(), invalid: 0 };
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
            FarEnd::Path(path) => socket::connect(path, libc::SOCK_SEQPACKET),
            FarEnd::Listener(listener, _) => socket::accept(listener),
        })
    }
}

struct LinkQueue {
    connection: Arc<Connection>,
    vectors: Vectors,
    /// Frames that are shorter than an Ethernet header.
    invalid: u64,
}

impl Uncounted for LinkQueue {
    fn send(&mut self, frame: &Frame<'_>) -> Result<(), SendError> {
        frame.check(Offloads::empty(), MAX_FRAME)?;
        if !self.connection.is_up() {
            return Err(SendError::LinkDown);
        }
        let result = self.vectors.write(self.connection.socket(), Kind::Socket, &[], frame);
        self.connection.sent(result).map(|_| ())
    }

    fn receive(&mut self, space: &Pieces<'_>) -> Result<Option<Received>, ReceiveError> {
        if !self.connection.is_up() {
            return Err(ReceiveError::LinkDown);
        }
        // A frame that fills this byte was longer than the space.
        let mut spare = [0];
        let socket = self.connection.socket();
        let result = self.vectors.read(socket, Kind::Socket, &mut [], space, &mut spare);
        match self.connection.received(result)? {
            Some(0) => {
                self.connection.lost();
                Err(ReceiveError::LinkDown)
            }
            Some(length) if length > space.len() => Err(ReceiveError::TooLong),
            Some(length) if length < MIN_FRAME => {
                self.invalid = self.invalid.wrapping_add(1);
                // The event stays readable if there is another one.
                Ok(None)
            }
            Some(length) => Ok(Some(Received { offset: 0, length, header: VnetHeader::default() })),
            None => Ok(None),
        }
    }

    fn event(&self) -> Option<RawFd> {
        Some(self.connection.event())
    }

    fn space_event(&self) -> Option<RawFd> {
        Some(self.connection.space_event())
    }

    fn add_own(&self, counters: &mut Counters) {
        counters.receive_invalid = self.invalid;
    }
}

impl Drop for LinkQueue {
    fn drop(&mut self) {
        self.connection.close();
    }
}

#[cfg(test)]
mod tests;
