//! Sockets of viewers, with and without TLS.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};

use rustls::ServerConnection;

use crate::tls::TlsConfig;

/// A connected socket.
#[derive(Debug)]
pub enum ViewerSocket {
    /// A Unix socket.
    Unix(UnixStream),
    /// A TCP connection.
    Tcp(TcpStream),
}

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    /// A Unix socket.
    Unix(UnixListener),
    /// A TCP socket.
    Tcp(TcpListener),
}

impl From<UnixStream> for ViewerSocket {
    fn from(stream: UnixStream) -> Self {
        Self::Unix(stream)
    }
}

impl From<TcpStream> for ViewerSocket {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl ViewerSocket {
    /// Makes the socket non-blocking, and send small messages without delay.
    fn prepare(&self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_nonblocking(true),
            Self::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)
            }
        }
    }
}

impl Read for ViewerSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for ViewerSocket {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(buffer),
            Self::Tcp(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsRawFd for ViewerSocket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Unix(stream) => stream.as_raw_fd(),
            Self::Tcp(stream) => stream.as_raw_fd(),
        }
    }
}

impl Listener {
    pub(crate) fn prepare(&self) -> io::Result<()> {
        match self {
            Self::Unix(listener) => listener.set_nonblocking(true),
            Self::Tcp(listener) => listener.set_nonblocking(true),
        }
    }

    pub(crate) fn accept(&self) -> io::Result<ViewerSocket> {
        match self {
            Self::Unix(listener) => listener.accept().map(|(stream, _)| stream.into()),
            Self::Tcp(listener) => listener.accept().map(|(stream, _)| stream.into()),
        }
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Unix(listener) => listener.as_raw_fd(),
            Self::Tcp(listener) => listener.as_raw_fd(),
        }
    }
}

/// A viewer's stream of bytes. It never waits: a call that cannot progress returns
/// [`io::ErrorKind::WouldBlock`].
#[derive(Debug)]
pub(crate) struct Transport {
    socket: ViewerSocket,
    tls: Option<Box<ServerConnection>>,
    /// Bytes that TLS has decrypted and that were not read.
    decrypted: usize,
}

impl Transport {
    pub(crate) fn new(socket: ViewerSocket) -> io::Result<Self> {
        socket.prepare()?;
        Ok(Self { socket, tls: None, decrypted: 0 })
    }

    /// Begins TLS. All bytes that the viewer has sent were read, and all for it were written.
    pub(crate) fn start_tls(&mut self, config: &TlsConfig) -> io::Result<()> {
        let connection = ServerConnection::new(config.server_config()).map_err(io::Error::other)?;
        self.tls = Some(Box::new(connection));
        Ok(())
    }

    /// Returns whether encrypted bytes wait for the socket.
    pub(crate) fn has_pending_bytes(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Returns whether there are bytes to read that the socket no longer has.
    pub(crate) fn has_decrypted_bytes(&self) -> bool {
        self.decrypted != 0
    }

    /// Writes encrypted bytes, as many as the socket takes.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while tls.wants_write() {
            if tls.write_tls(&mut self.socket)? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.socket.read(buffer) };
        loop {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => {
                    let read = done.as_ref().map_or(usize::MAX, |length| *length);
                    self.decrypted = self.decrypted.saturating_sub(read);
                    return done;
                }
            }
            if tls.read_tls(&mut self.socket)? == 0 {
                return Ok(0);
            }
            match tls.process_new_packets() {
                Ok(state) => self.decrypted = state.plaintext_bytes_to_read(),
                Err(error) => {
                    // The viewer learns the reason by an alert, if the socket takes it.
                    let _ = tls.write_tls(&mut self.socket);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
            }
        }
    }

    pub(crate) fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        // TLS holds the bytes of the calls below, and a call fails only if it holds too many.
        self.flush()?;
        match &mut self.tls {
            None => self.socket.write(buffer),
            Some(tls) => tls.writer().write(buffer),
        }
    }
}

impl AsRawFd for Transport {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
