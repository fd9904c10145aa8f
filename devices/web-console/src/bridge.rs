//! Bytes between a WebSocket and a stream, in both directions, in one thread.
//!
//! Nothing is read from one side while the other has not taken what was read before, so memory is
//! bounded and a slow side slows only its own source. The protocol of the bytes is not looked at.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tungstenite::{Bytes, Error, Message, WebSocket};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// Bytes from the stream in one message.
const CHUNK_BYTES: usize = 32 << 10;

/// Time in which a side must take a whole message; after it, the connection is dropped.
const STALL_TIMEOUT: Duration = Duration::from_secs(20);

/// The largest message of a browser. The largest that a page sends is a pasted text.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Returns the limits of all WebSockets.
pub fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(16 << 10)
        .write_buffer_size(0)
        .max_write_buffer_size(MAX_MESSAGE_BYTES)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES))
}

/// Carries bytes until one side ends.
///
/// # Errors
/// A side failed, broke the protocol of WebSockets, or did not take a message in time.
pub(crate) fn run(websocket: WebSocket<&TcpStream>, stream: UnixStream) -> io::Result<()> {
    let socket = *websocket.get_ref();
    socket.set_nonblocking(true)?;
    stream.set_nonblocking(true)?;
    let epoll = Epoll::new()?;
    for fd in [socket.as_raw_fd(), stream.as_raw_fd()] {
        epoll.ctl(ControlOperation::Add, fd, event(fd, EventSet::empty()))?;
    }
    let mut bridge = Bridge::new(websocket, stream);
    let mut events = [EpollEvent::default(); 2];
    let mut moved = Instant::now();
    loop {
        match bridge.progress()? {
            Progress::Ended => return Ok(()),
            Progress::Moved => moved = Instant::now(),
            Progress::Nothing => {}
        }
        let (client, server) = bridge.interest();
        epoll.ctl(ControlOperation::Modify, socket.as_raw_fd(), event(0, client))?;
        epoll.ctl(ControlOperation::Modify, bridge.stream.as_raw_fd(), event(1, server))?;
        // Without bytes that wait there is nothing to time out: an idle bridge sleeps.
        let timeout = match bridge.is_stalled() {
            true => STALL_TIMEOUT.saturating_sub(moved.elapsed()),
            false => Duration::MAX,
        };
        if timeout.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let milliseconds = i32::try_from(timeout.as_millis().saturating_add(1)).unwrap_or(-1);
        match epoll.wait(milliseconds, &mut events) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if !bridge.is_stalled() {
            moved = Instant::now();
        }
    }
}

fn event(data: RawFd, set: EventSet) -> EpollEvent {
    EpollEvent::new(set, data as u64)
}

/// The result of [`Bridge::progress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nothing can move before one of the descriptors is ready.
    Nothing,
    /// Bytes have moved.
    Moved,
    /// One side has ended, and the other one was told.
    Ended,
}

/// The state of both directions. `S` is the browser's side, `B` the machine's; both non-blocking.
pub struct Bridge<S, B> {
    websocket: WebSocket<S>,
    stream: B,
    /// A message of the browser, and the bytes of it that the stream has taken.
    to_stream: (Bytes, usize),
    /// The WebSocket has bytes that the browser has not taken.
    flushing: bool,
    /// The stream has ended; the browser is told, and then the bridge ends.
    ending: bool,
    buffer: Vec<u8>,
}

impl<S: Read + Write, B: Read + Write> Bridge<S, B> {
    /// Returns the bridge between a WebSocket, with the limits of [`websocket_config`], and a
    /// stream.
    pub fn new(websocket: WebSocket<S>, stream: B) -> Self {
        Bridge {
            websocket,
            stream,
            to_stream: (Bytes::new(), 0),
            flushing: false,
            ending: false,
            buffer: vec![0; CHUNK_BYTES],
        }
    }

    /// Moves as much as possible without waiting, but not more than a few messages, so that the
    /// caller sees the progress.
    ///
    /// # Errors
    /// A side failed, or the browser broke the protocol.
    pub fn progress(&mut self) -> io::Result<Progress> {
        let mut result = Progress::Nothing;
        for _ in 0..64 {
            let mut moved = self.write_stream()?;
            if self.has_no_message() && !self.ending {
                match self.read_websocket()? {
                    Progress::Ended => return Ok(Progress::Ended),
                    one => moved |= one == Progress::Moved,
                }
            }
            moved |= self.flush()?;
            if self.ending && !self.flushing {
                return Ok(Progress::Ended);
            }
            if !self.flushing && !self.ending {
                moved |= self.read_stream()?;
            }
            if !moved {
                return Ok(result);
            }
            result = Progress::Moved;
        }
        Ok(result)
    }

    /// Returns the events to wait for: those of the browser's side and those of the stream.
    fn interest(&self) -> (EventSet, EventSet) {
        let (mut client, mut server) = (EventSet::empty(), EventSet::empty());
        client.set(EventSet::IN, self.has_no_message());
        client.set(EventSet::OUT, self.flushing);
        server.set(EventSet::IN, !self.flushing);
        server.set(EventSet::OUT, !self.has_no_message());
        (client, server)
    }

    /// Returns whether one side has not taken all bytes.
    fn is_stalled(&self) -> bool {
        self.flushing || !self.has_no_message()
    }

    fn has_no_message(&self) -> bool {
        self.to_stream.1 == self.to_stream.0.len()
    }

    fn write_stream(&mut self) -> io::Result<bool> {
        let (message, done) = &mut self.to_stream;
        if *done == message.len() {
            return Ok(false);
        }
        match self.stream.write(&message[*done..]) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => {
                *done += length;
                Ok(true)
            }
            Err(error) if is_transient(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn read_websocket(&mut self) -> io::Result<Progress> {
        match self.websocket.read() {
            Ok(Message::Binary(bytes)) => {
                self.to_stream = (bytes, 0);
                Ok(Progress::Moved)
            }
            Ok(Message::Text(_)) => {
                self.close(CloseCode::Unsupported, "binary messages only");
                Ok(Progress::Moved)
            }
            // The answer to a ping leaves with the next flush.
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_)) => {
                self.flushing = true;
                Ok(Progress::Moved)
            }
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => Ok(Progress::Ended),
            Err(Error::Io(error)) if is_transient(&error) => Ok(Progress::Nothing),
            Err(Error::Io(error)) => Err(error),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    fn read_stream(&mut self) -> io::Result<bool> {
        match self.stream.read(&mut self.buffer) {
            Ok(0) => {
                self.close(CloseCode::Normal, "the machine has ended the connection");
                Ok(true)
            }
            Ok(length) => {
                let message = Bytes::copy_from_slice(&self.buffer[..length]);
                match self.websocket.write(Message::Binary(message)) {
                    Ok(()) => {}
                    Err(Error::Io(error)) if is_transient(&error) => {}
                    Err(Error::Io(error)) => return Err(error),
                    Err(error) => return Err(io::Error::other(error)),
                }
                self.flushing = true;
                Ok(true)
            }
            Err(error) if is_transient(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn close(&mut self, code: CloseCode, reason: &'static str) {
        // The connection may have been closed by the browser before.
        let _ = self.websocket.close(Some(CloseFrame { code, reason: reason.into() }));
        self.ending = true;
        self.flushing = true;
    }

    /// Sends what waits for the browser. Returns whether all has left.
    fn flush(&mut self) -> io::Result<bool> {
        if !self.flushing {
            return Ok(false);
        }
        match self.websocket.flush() {
            Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => {
                self.flushing = false;
                Ok(true)
            }
            Err(Error::Io(error)) if is_transient(&error) => Ok(false),
            Err(Error::Io(error)) => Err(error),
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
#[path = "bridge_tests.rs"]
mod tests;
