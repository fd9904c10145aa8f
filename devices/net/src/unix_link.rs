//! A cable between two processes: one frame in each message of a Unix seqpacket socket.

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::claim::{Claim, Claims};
use crate::connection::{Connection, is_gone};
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
    /// The peer connects to this socket.
    Listener(OwnedFd),
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

    /// Listens at `path`, which must not exist. The link is down until [`Backend::reconnect`] finds
    /// a peer that has connected.
    ///
    /// # Errors
    /// The system's; the path exists, for example.
    pub fn listen(path: &Path) -> io::Result<Self> {
        let listener = socket::listen(path, libc::SOCK_SEQPACKET)?;
        let connection = Connection::down(path.display().to_string())?;
        Ok(Self::over(connection, FarEnd::Listener(listener)))
    }

    fn over(connection: Connection, far_end: FarEnd) -> Self {
        Self { connection: Arc::new(connection), claims: Claims::new(1), far_end }
    }
}

impl Backend for UnixLink {
    fn offloads(&self) -> Offloads {
        Offloads::empty()
    }

    fn mtu_limit(&self) -> u32 {
        (MAX_FRAME - MIN_FRAME) as u32
    }

    fn queue(&self, index: usize) -> io::Result<Box<dyn Queue>> {
        let claim = self.claims.claim(index)?;
        self.connection.open()?;
        Ok(Box::new(LinkQueue {
            connection: Arc::clone(&self.connection),
            vectors: Vectors::default(),
            waits_for_space: false,
            counters: Counters::default(),
            _claim: claim,
        }))
    }

    fn link(&self) -> LinkState {
        self.connection.link().take()
    }

    fn link_event(&self) -> Option<RawFd> {
        Some(self.connection.link().event())
    }

    fn reconnect(&self) -> io::Result<()> {
        if self.connection.is_up() {
            return Ok(());
        }
        let socket = match &self.far_end {
            FarEnd::Given => return Err(io::ErrorKind::Unsupported.into()),
            FarEnd::Path(path) => socket::connect(path, libc::SOCK_SEQPACKET)?,
            FarEnd::Listener(listener) => socket::accept(listener)?,
        };
        self.connection.replace(&socket)
    }
}

struct LinkQueue {
    connection: Arc<Connection>,
    vectors: Vectors,
    waits_for_space: bool,
    counters: Counters,
    _claim: Claim,
}

impl LinkQueue {
    fn try_send(&mut self, frame: &Frame<'_>) -> Result<(), SendError> {
        frame.check(Offloads::empty(), MAX_FRAME)?;
        if !self.connection.is_up() {
            return Err(SendError::LinkDown);
        }
        match self.vectors.write(self.connection.socket(), Kind::Socket, &[], frame) {
            Ok(_) => {
                self.watch_space(false);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.watch_space(true);
                Err(SendError::Full)
            }
            Err(error) if is_gone(&error) => {
                self.connection.lost();
                Err(SendError::LinkDown)
            }
            Err(error) => Err(SendError::Os(error.raw_os_error().unwrap_or(libc::EIO))),
        }
    }

    fn try_receive(&mut self, space: &Pieces<'_>) -> Result<Option<Received>, ReceiveError> {
        if !self.connection.is_up() {
            return Err(ReceiveError::LinkDown);
        }
        // A frame that fills this byte was longer than the space.
        let mut spare = [0];
        let socket = self.connection.socket();
        match self.vectors.read(socket, Kind::Socket, &mut [], space, &mut spare) {
            Ok(0) => {
                self.connection.lost();
                Err(ReceiveError::LinkDown)
            }
            Ok(length) if length > space.len() => Err(ReceiveError::TooLong),
            Ok(length) if length < MIN_FRAME => {
                self.counters.receive_invalid = self.counters.receive_invalid.wrapping_add(1);
                // The event stays readable if there is another one.
                Ok(None)
            }
            Ok(length) => Ok(Some(Received { offset: 0, length, header: VnetHeader::default() })),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if is_gone(&error) => {
                self.connection.lost();
                Err(ReceiveError::LinkDown)
            }
            Err(error) => Err(ReceiveError::Os(error.raw_os_error().unwrap_or(libc::EIO))),
        }
    }

    fn watch_space(&mut self, wanted: bool) {
        if self.waits_for_space != wanted && self.connection.watch_space(wanted).is_ok() {
            self.waits_for_space = wanted;
        }
    }
}

impl Queue for LinkQueue {
    fn send(&mut self, frame: &Frame<'_>) -> Result<(), SendError> {
        let result = self.try_send(frame);
        self.counters.count_send(frame.pieces.len(), result);
        result
    }

    fn receive(&mut self, space: &Pieces<'_>) -> Result<Option<Received>, ReceiveError> {
        let result = self.try_receive(space);
        self.counters.count_receive(&result);
        result
    }

    fn event(&self) -> Option<RawFd> {
        Some(self.connection.event())
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

impl Drop for LinkQueue {
    fn drop(&mut self) {
        self.connection.close();
    }
}

#[cfg(test)]
mod tests;
