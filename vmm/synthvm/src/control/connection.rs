//! One client: bytes in, lines out, neither without bound.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use super::jobs::{Jobs, Pending};
use super::protocol::{MAX_REQUEST_BYTES, Reply, Request, perform};

/// Answer bytes that may wait for a slow client. While more wait, its requests are not read;
/// requests that it has sent already stay in the socket.
const MAX_WAITING_BYTES: usize = 1 << 20;

/// Bytes read at a time.
const CHUNK: usize = 16 << 10;

pub(super) struct Connection {
    stream: UnixStream,
    received: Vec<u8>,
    waiting: Vec<u8>,
    /// The answer to the last request, which is being worked on; later requests wait, so that
    /// answers keep their order.
    pending: Option<Pending>,
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
        Ok(Connection {
            stream,
            received: Vec::new(),
            waiting: Vec::new(),
            pending: None,
            ending: false,
        })
    }

    pub(super) fn fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// Does what can be done without waiting. None: the connection is over.
    ///
    /// At most one chunk is read and one request answered, so that a busy client cannot keep the
    /// event loop from others.
    pub(super) fn turn(&mut self, jobs: &Jobs) -> Option<Wants> {
        self.send().ok()?;
        if self.wants().read {
            self.receive().ok()?;
        }
        self.answer_one(jobs);
        self.send().ok()?;
        let over =
            self.ending && self.waiting.is_empty() && self.pending.is_none() && !self.has_request();
        (!over).then(|| self.wants())
    }

    /// Its last request is being worked on. Until that ends nothing more is read, so a client that
    /// has hung up meanwhile can only be dropped: the request goes on, and its answer is
    /// discarded.
    pub(super) fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }

    fn wants(&self) -> Wants {
        let full = self.waiting.len() >= MAX_WAITING_BYTES;
        let (busy, has_request) = (self.pending.is_some(), self.has_request());
        // A socket is nearly always writable: asking for that brings the next turn for a request
        // that is here already.
        let write = (has_request && !busy) || !self.waiting.is_empty();
        Wants { read: !self.ending && !full && !busy && !has_request, write }
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

    fn answer_one(&mut self, jobs: &Jobs) {
        if let Some(pending) = &self.pending {
            let Some(reply) = pending.take() else { return };
            self.pending = None;
            self.waiting.extend(reply.line());
        }
        if self.waiting.len() >= MAX_WAITING_BYTES {
            return;
        }
        match self.received.iter().position(|byte| *byte == b'\n') {
            Some(end) if end < MAX_REQUEST_BYTES => {
                let line = self.received[..end].trim_ascii();
                if !line.is_empty() {
                    match Request::parse(line) {
                        Ok(request) if request.waits() => self.pending = Some(jobs.start(request)),
                        Ok(request) => self.waiting.extend(perform(request, jobs.target()).line()),
                        Err(reply) => self.waiting.extend(reply.line()),
                    }
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
