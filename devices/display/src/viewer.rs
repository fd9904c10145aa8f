//! One viewer: its socket, its log-in, and the bytes that wait for it.

mod changes;
mod output;
mod running;
mod shared;
mod update;

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use synthvm_input::Input;

use crate::protocol::{CHALLENGE_BYTES, Handshake, ProtocolError, Step, VERSION, server_init};
use crate::security::{Permission, Security};
use crate::socket::{Transport, ViewerSocket};

use output::Output;
pub(crate) use running::Running;
pub(crate) use shared::Shared;

/// Bytes of a read.
const CHUNK: usize = 16 << 10;

/// Bytes that wait for a viewer, above which no rectangle is encoded for it.
const UPDATE_BYTES: usize = 256 << 10;

/// Bytes that wait for a viewer, above which its messages are not read: their answers would wait,
/// too.
const ANSWER_BYTES: usize = 4 << 20;

/// Rectangles that are encoded for a viewer before it is another one's turn.
const RECTANGLES_AT_ONCE: usize = 8;

/// The reason why a viewer is gone.
#[derive(Debug)]
pub(crate) enum Ending {
    /// It has left, or was refused.
    Left,
    /// Its socket failed.
    Socket(io::Error),
    /// It does not speak the protocol.
    Malformed(ProtocolError),
}

/// What the event loop does next for a viewer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wants {
    pub(crate) read: bool,
    pub(crate) write: bool,
    /// More can be done without waiting for the viewer.
    pub(crate) progress: bool,
}

/// A viewer.
#[derive(Debug)]
pub(crate) struct Viewer {
    transport: Transport,
    security: Security,
    phase: Phase,
    input: Vec<u8>,
    out: Output,
    /// TLS begins once all bytes are written.
    starts_tls: bool,
    /// The connection ends once all bytes are written.
    is_ending: bool,
    /// More can be done without waiting for the viewer.
    has_work: bool,
    connected: Instant,
}

#[derive(Debug)]
enum Phase {
    Login(Handshake<Permission>),
    Running(Box<Running>),
}

impl Viewer {
    /// Begins a log-in.
    ///
    /// # Errors
    /// The socket failed, or the host has no random bytes.
    pub(crate) fn new(socket: ViewerSocket, security: Security) -> io::Result<Self> {
        let mut challenge = [0; CHALLENGE_BYTES];
        getrandom::fill(&mut challenge).map_err(io::Error::other)?;
        let mut out = Output::default();
        out.bytes().extend(VERSION);
        Ok(Self {
            transport: Transport::new(socket)?,
            security,
            phase: Phase::Login(Handshake::new(challenge)),
            input: Vec::new(),
            out,
            starts_tls: false,
            is_ending: false,
            has_work: true,
            connected: Instant::now(),
        })
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.transport.as_raw_fd()
    }

    /// Returns the viewer that has logged in.
    pub(crate) fn running(&mut self) -> Option<&mut Running> {
        match &mut self.phase {
            Phase::Running(running) => Some(running),
            Phase::Login(_) => None,
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running(_))
    }

    /// Returns whether changes of the screen would be sent now.
    pub(crate) fn wants_update(&self) -> bool {
        match &self.phase {
            Phase::Running(running) => running.wants_update() && self.out.len() < UPDATE_BYTES,
            Phase::Login(_) => false,
        }
    }

    /// Returns when the viewer is dropped unless it logs in or reads.
    pub(crate) fn deadline(&self, login: Duration, stall: Duration) -> Option<Instant> {
        let login = (!self.is_running()).then(|| self.connected + login);
        let stall = self.out.waiting_since().map(|since| since + stall);
        login.into_iter().chain(stall).min()
    }

    /// Reads messages, and handles them.
    ///
    /// # Errors
    /// The viewer is gone.
    pub(crate) fn read(&mut self, shared: &mut Shared<'_>) -> Result<(), Ending> {
        let mut chunk = [0; CHUNK];
        loop {
            match self.transport.read(&mut chunk) {
                Ok(0) => return Err(Ending::Left),
                Ok(length) => self.input.extend_from_slice(&chunk[..length]),
                Err(error) if is_transient(&error) => break,
                Err(error) => return Err(Ending::Socket(error)),
            }
            // Nothing reports bytes that TLS has decrypted already.
            if !self.transport.has_decrypted_bytes() {
                break;
            }
        }
        self.handle(shared)
    }

    /// Writes, encodes and begins updates, as far as the viewer reads.
    ///
    /// # Errors
    /// The viewer is gone.
    pub(crate) fn progress(&mut self, shared: &mut Shared<'_>) -> Result<Wants, Ending> {
        self.has_work = false;
        for _ in 0..RECTANGLES_AT_ONCE {
            self.write(shared)?;
            if self.out.is_empty() && self.is_ending && !self.transport.has_pending_bytes() {
                return Err(Ending::Left);
            }
            if self.out.is_empty() && self.starts_tls {
                self.starts_tls = false;
                if let Some(tls) = self.security.tls() {
                    self.transport.start_tls(tls).map_err(Ending::Socket)?;
                }
                self.handle(shared)?;
                continue;
            }
            // Messages that arrived while too many answers waited.
            if !self.input.is_empty() {
                self.handle(shared)?;
            }
            let Phase::Running(running) = &mut self.phase else { return Ok(self.wants()) };
            if self.out.len() >= UPDATE_BYTES || !running.progress(shared, self.out.bytes()) {
                self.write(shared)?;
                return Ok(self.wants());
            }
        }
        self.has_work = true;
        Ok(self.wants())
    }

    /// Releases the keys and buttons that the viewer holds.
    pub(crate) fn leave(&mut self, input: &Input) {
        if let Phase::Running(running) = &mut self.phase {
            running.leave(input);
        }
    }

    fn wants(&self) -> Wants {
        // The viewer may have read all bytes after too many had waited: its socket reports nothing
        // more, and the rest of the update is due.
        let is_resumed = match &self.phase {
            Phase::Running(running) => running.is_updating() && self.out.is_empty(),
            Phase::Login(_) => false,
        };
        Wants {
            read: !self.is_full() && !self.is_ending && !self.starts_tls,
            write: !self.out.is_empty() || self.transport.has_pending_bytes(),
            progress: self.has_work || is_resumed,
        }
    }

    fn is_full(&self) -> bool {
        let deferred = match &self.phase {
            Phase::Running(running) => running.deferred_bytes(),
            Phase::Login(_) => 0,
        };
        self.out.len() + deferred >= ANSWER_BYTES
    }

    fn write(&mut self, shared: &Shared<'_>) -> Result<(), Ending> {
        while !self.out.is_empty() {
            match self.transport.write(self.out.unsent()) {
                Ok(0) => break,
                Ok(length) => {
                    self.out.sent(length);
                    shared.counters.bytes.add(length);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_transient(&error) => break,
                Err(error) => return Err(Ending::Socket(error)),
            }
        }
        match self.transport.flush() {
            Err(error) if !is_transient(&error) => Err(Ending::Socket(error)),
            _ => Ok(()),
        }
    }

    /// Handles all messages that have arrived.
    fn handle(&mut self, shared: &mut Shared<'_>) -> Result<(), Ending> {
        let mut bytes = std::mem::take(&mut self.input);
        let mut at = 0;
        while !self.is_ending && !self.starts_tls && !self.is_full() {
            let rest = &bytes[at..];
            let length = match &mut self.phase {
                Phase::Login(_) => self.log_in(rest, shared),
                Phase::Running(running) => running.handle(rest, shared, self.out.bytes()),
            };
            let Some(length) = length.map_err(Ending::Malformed)? else { break };
            at += length;
        }
        bytes.drain(..at);
        self.input = bytes;
        if self.starts_tls && !self.input.is_empty() {
            // These bytes were sent without protection.
            return Err(Ending::Malformed(ProtocolError::BeforeTls));
        }
        Ok(())
    }

    /// Handles a message of the log-in. Returns its length; `None`: more bytes are needed.
    fn log_in(
        &mut self,
        bytes: &[u8],
        shared: &Shared<'_>,
    ) -> Result<Option<usize>, ProtocolError> {
        let Phase::Login(handshake) = &mut self.phase else { return Ok(None) };
        let (step, length) = handshake.handle(bytes, self.out.bytes(), &self.security)?;
        match step {
            Step::Wait => return Ok(None),
            Step::Continue => {}
            Step::StartTls => self.starts_tls = true,
            Step::LoggedIn(permission) => {
                let (width, height) = (shared.canvas.width(), shared.canvas.height());
                self.out.bytes().extend(server_init(width, height, shared.name));
                self.phase = Phase::Running(Box::new(Running::new(permission, width, height)));
            }
            Step::Refused(reason) => {
                tracing::warn!(reason, "display server: a viewer was refused");
                shared.counters.refused_logins.add(1);
                self.is_ending = true;
            }
        }
        Ok(Some(length))
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
