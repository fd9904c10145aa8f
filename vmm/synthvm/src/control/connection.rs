//! A client's connection: received bytes and answers, both bounded.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use super::StreamKind;
use super::jobs::{Jobs, Pending};
use super::protocol::{MAX_REQUEST_BYTES, Reply, Request, perform};
use super::responder::{Answer, Hold};

/// Limit of unsent answer bytes for a slow client. Above it, the client's requests are not read and
/// stay in the socket.
const MAX_WAITING_BYTES: usize = 1 << 20;

/// Maximum number of holds of a client. Above it, the oldest ends.
const MAX_HOLDS: usize = 4;

/// Bytes per read.
const CHUNK: usize = 16 << 10;

pub(super) struct Connection {
    stream: UnixStream,
    received: Vec<u8>,
    waiting: Vec<u8>,
    /// The answer in progress to the last request. Later requests wait, so that answers keep their
    /// order.
    pending: Option<Pending>,
    /// End when the client disconnects.
    holds: VecDeque<Hold>,
    /// No more requests will be read; the connection ends after the last answer is sent.
    ending: bool,
    /// The connection becomes this stream after the last answer is sent.
    stream_kind: Option<StreamKind>,
}

/// The state of a connection after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It waits for these events.
    Waits(Wants),
    /// It becomes a stream.
    Becomes(StreamKind),
    /// It has ended.
    Over,
}

/// The readiness events that a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wants {
    pub(super) read: bool,
    pub(super) write: bool,
}

impl Connection {
    /// Wraps a client's stream, which becomes non-blocking.
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Connection {
            stream,
            received: Vec::new(),
            waiting: Vec::new(),
            pending: None,
            holds: VecDeque::new(),
            ending: false,
            stream_kind: None,
        })
    }

    pub(super) fn fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// Returns the client's stream, which is non-blocking.
    pub(super) fn into_stream(self) -> UnixStream {
        self.stream
    }

    /// Makes as much progress as possible without waiting.
    ///
    /// Reads at most one chunk and answers at most one request, so that a busy client does not
    /// starve other subscribers of the event loop.
    pub(super) fn turn(&mut self, jobs: &Jobs) -> Turn {
        self.progress(jobs).unwrap_or(Turn::Over)
    }

    fn progress(&mut self, jobs: &Jobs) -> io::Result<Turn> {
        self.send()?;
        if self.wants().read {
            self.receive()?;
        }
        self.answer_one(jobs);
        self.send()?;
        Ok(match self.stream_kind {
            Some(kind) if self.waiting.is_empty() => Turn::Becomes(kind),
            None if self.is_over() => Turn::Over,
            _ => Turn::Waits(self.wants()),
        })
    }

    fn is_over(&self) -> bool {
        self.ending && self.waiting.is_empty() && self.pending.is_none() && !self.has_request()
    }

    /// Returns whether the last request is in progress. Until it ends nothing more is read, so a
    /// client that hangs up in the meantime can only be dropped: the request continues, and its
    /// answer is discarded.
    pub(super) fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }

    fn wants(&self) -> Wants {
        let full = self.waiting.len() >= MAX_WAITING_BYTES;
        let (busy, has_request) = (self.pending.is_some(), self.has_request());
        // A socket is nearly always writable: write interest causes the next call for a request
        // that has already been received.
        let write = (has_request && !busy) || !self.waiting.is_empty();
        if self.stream_kind.is_some() {
            return Wants { read: false, write: true };
        }
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
                // The last request may lack its newline.
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
            let Some(Answer { reply, hold }) = pending.take() else { return };
            self.pending = None;
            self.waiting.extend(reply.line());
            self.holds.extend(hold);
            if self.holds.len() > MAX_HOLDS {
                self.holds.pop_front();
            }
        }
        if self.waiting.len() >= MAX_WAITING_BYTES || self.stream_kind.is_some() {
            return;
        }
        match self.received.iter().position(|byte| *byte == b'\n') {
            Some(end) if end < MAX_REQUEST_BYTES => {
                let line = self.received[..end].trim_ascii();
                if !line.is_empty() {
                    match Request::parse(line) {
                        Ok(Request::Service { request }) => {
                            self.pending = Some(jobs.ask_guest(*request));
                        }
                        Ok(request) if request.stream().is_some() => {
                            self.open_stream(&request, end, jobs);
                        }
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

    /// Answers a request for a stream, which ends at `end`.
    fn open_stream(&mut self, request: &Request, end: usize, jobs: &Jobs) {
        // Bytes that were sent before the answer may be more requests or the stream's first bytes.
        if self.received.len() > end + 1 {
            let message = "wait for the answer before you send more: the connection may become a \
                           stream";
            self.waiting.extend(Reply::refused(message).line());
            self.ending = true;
            return;
        }
        let reply = perform(request.clone(), jobs.target());
        if reply.ok {
            self.stream_kind = request.stream();
        }
        self.waiting.extend(reply.line());
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
