//! One client: bytes in, lines out, neither without bound.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use super::ControlTarget;
use super::protocol::{MAX_REQUEST_BYTES, Reply, answer};

/// Answer bytes that may wait for a slow client. While more wait, its requests are not read; requests that it has sent already stay
/// in the socket.
const MAX_WAITING_BYTES: usize = 1 << 20;

/// Bytes read at a time.
const CHUNK: usize = 16 << 10;

pub(super) struct Connection {
    stream: UnixStream,
    received: Vec<u8>,
    waiting: Vec<u8>,
    /// No more requests will be read; the connection ends when the last answer is out.
    ending: bool,
}

/// What a connection wants to be told next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wants {
    pub(super) read: bool,
    pub(super) write: bool,
}

impl Connection {
    /// Takes over a client. The stream becomes non-blocking.
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Connection { stream, received: Vec::new(), waiting: Vec::new(), ending: false })
    }

    pub(super) fn fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// Does what can be done without waiting. None: the connection is over.
    ///
    /// At most one chunk is read and one request answered, so that a busy client cannot keep the event loop from others.
    pub(super) fn turn(&mut self, target: &dyn ControlTarget) -> Option<Wants> {
        self.send().ok()?;
        if self.wants().read {
            self.receive().ok()?;
        }
        self.answer_one(target);
        self.send().ok()?;
        let over = self.ending && self.waiting.is_empty() && !self.has_request();
        (!over).then(|| self.wants())
    }

    fn wants(&self) -> Wants {
        let full = self.waiting.len() >= MAX_WAITING_BYTES;
        let has_request = self.has_request();
        // A socket is nearly always writable: asking for that brings the next turn for a request that is here already.
        Wants { read: !self.ending && !full && !has_request, write: has_request || !self.waiting.is_empty() }
    }

    fn has_request(&self) -> bool {
        self.received.contains(&b'\n')
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut chunk = [0; CHUNK];
        match self.stream.read(&mut chunk) {
            Ok(0) => {
                self.ending = true;
                // A last request may lack its newline.
                self.received.extend((!self.received.is_empty()).then_some(b'\n'));
            }
            Ok(length) => self.received.extend_from_slice(&chunk[..length]),
            Err(error) if is_transient(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn answer_one(&mut self, target: &dyn ControlTarget) {
        if self.waiting.len() >= MAX_WAITING_BYTES {
            return;
        }
        match self.received.iter().position(|byte| *byte == b'\n') {
            Some(end) if end < MAX_REQUEST_BYTES => {
                let line = self.received[..end].trim_ascii();
                if !line.is_empty() {
                    self.waiting.extend(answer(line, target).line());
                }
                self.received.drain(..=end);
            }
            None if self.received.len() < MAX_REQUEST_BYTES => {}
            Some(_) | None => {
                let message = format!("a request has at most {MAX_REQUEST_BYTES} bytes");
                self.waiting.extend(Reply::refused(message).line());
                self.received.clear();
                self.ending = true;
            }
        }
    }

    fn send(&mut self) -> io::Result<()> {
        while !self.waiting.is_empty() {
            match self.stream.write(&self.waiting) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => drop(self.waiting.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
