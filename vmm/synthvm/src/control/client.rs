//! The client of the control socket, for `synthvm inspect` and `synthvm control` and other Rust
//! programs.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use synthvm_machine::unix_socket;

use super::protocol::{Cause, Reply, Request};
use crate::inspect::InspectReport;

/// Timeout of requests that return a snapshot. A machine that takes longer hangs.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Timeout of requests that access a file or ask the guest. The last requests on a disk have half a minute, other
/// requests may precede this one, and image files may be on slow servers.
const PATIENT_TIMEOUT: Duration = Duration::from_secs(300);

/// The largest reply accepted, in bytes. A report of 64 vCPUs and 16,000 GPADLs has about 2 MiB.
const MAX_REPLY_BYTES: u64 = 64 << 20;

/// A failed request: the socket and the cause.
#[derive(Debug, thiserror::Error)]
#[error("{}: {message}", .path.display())]
pub struct ClientError {
    path: PathBuf,
    message: String,
    cause: Option<Cause>,
}

impl ClientError {
    /// Returns the part of the machine at fault, if it is not the machine itself.
    pub fn cause(&self) -> Option<Cause> {
        self.cause
    }

    /// Returns the message without the socket.
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// A connection to a running machine.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

impl Client {
    /// Connects to the machine at the socket `path`.
    ///
    /// # Errors
    /// The socket does not exist, no program listens there or accepts clients, or it belongs to
    /// another user.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        Self::connect_within(path, TIMEOUT)
    }

    /// Connects like [`Client::connect`], with a given limit on the wait for a machine whose queue
    /// of clients is full.
    pub(super) fn connect_within(path: &Path, timeout: Duration) -> Result<Self, ClientError> {
        let fail = |message| ClientError { path: path.to_owned(), message, cause: None };
        let stream = unix_socket::connect(path, timeout).map_err(|error| {
            fail(match error.kind() {
                io::ErrorKind::WouldBlock => {
                    "the machine accepts no clients: too many wait, or it hangs; try again"
                        .to_owned()
                }
                _ => explain(&error, timeout),
            })
        })?;
        Ok(Client { stream: BufReader::new(stream), path: path.to_owned() })
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// The machine refused (with its message), has ended, or does not answer.
    pub fn request(&mut self, request: &Request) -> Result<Value, ClientError> {
        let timeout = if request.waits() { PATIENT_TIMEOUT } else { TIMEOUT };
        let reply =
            self.exchange(request, timeout).map_err(|error| self.fail(explain(&error, timeout)))?;
        match reply {
            Reply { ok: true, value, .. } => Ok(value.unwrap_or(Value::Null)),
            Reply { ok: false, error, cause, .. } => {
                let error = self.fail(error.unwrap_or_else(|| "refused".to_owned()));
                Err(ClientError { cause, ..error })
            }
        }
    }

    /// Requests a report.
    ///
    /// # Errors
    /// The errors of [`Client::request`]; or the machine is another version of SynthVM whose report
    /// has another format.
    pub fn inspect(&mut self) -> Result<InspectReport, ClientError> {
        self.ask(&Request::Inspect {})
    }

    /// Sends a request and converts its answer to a type.
    ///
    /// # Errors
    /// The errors of [`Client::request`]; or the machine is another version of SynthVM whose answer
    /// has another format.
    pub fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, ClientError> {
        let value = self.request(request)?;
        serde_json::from_value(value)
            .map_err(|error| self.fail(format!("sent an answer of another format: {error}")))
    }

    /// Waits until the machine has ended, for at most `timeout`. Returns false if it has not.
    pub fn wait_for_end(&mut self, timeout: Duration) -> bool {
        let stream = self.stream.get_ref();
        let is_set = stream.set_read_timeout(Some(timeout)).is_ok();
        let mut byte = [0];
        let waited = self.stream.read_exact(&mut byte).map_err(|error| error.kind());
        // The end of the stream, or its reset, is that of the machine.
        is_set && !matches!(waited, Ok(()) | Err(io::ErrorKind::WouldBlock))
    }

    /// Sends a request for a stream, and returns this connection as that stream, blocking and without
    /// timeouts.
    ///
    /// # Errors
    /// The errors of [`Client::request`].
    pub fn into_stream(mut self, request: &Request) -> Result<UnixStream, ClientError> {
        // The stream's bytes follow the answer immediately: a buffer must not take any of them.
        let path = self.path.clone();
        let fail = |error: &io::Error| ClientError {
            path: path.clone(),
            message: explain(error, TIMEOUT),
            cause: None,
        };
        self.stream = BufReader::with_capacity(1, self.stream.into_inner());
        let reply = self.exchange(request, TIMEOUT).map_err(|error| fail(&error))?;
        if !reply.ok {
            let message = reply.error.unwrap_or_else(|| "refused".to_owned());
            return Err(ClientError { path, message, cause: reply.cause });
        }
        let stream = self.stream.into_inner();
        let blocking = stream
            .set_read_timeout(None)
            .and_then(|()| stream.set_write_timeout(None))
            .and_then(|()| stream.set_nonblocking(false));
        blocking.map(|()| stream).map_err(|error| fail(&error))
    }

    fn exchange(&mut self, request: &Request, timeout: Duration) -> io::Result<Reply> {
        self.stream.get_ref().set_read_timeout(Some(timeout))?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)?;
        let mut answer = Vec::new();
        (&mut self.stream).take(MAX_REPLY_BYTES).read_until(b'\n', &mut answer)?;
        if answer.last() != Some(&b'\n') {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the machine ended before it answered",
            ));
        }
        Ok(serde_json::from_slice(&answer)?)
    }

    fn fail(&self, message: String) -> ClientError {
        ClientError { path: self.path.clone(), message, cause: None }
    }
}

fn explain(error: &io::Error, timeout: Duration) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no such socket; start the machine with --control PATH".to_owned()
        }
        io::ErrorKind::ConnectionRefused => {
            "no program listens there; the machine has ended".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            format!("{error}; the socket is for the user who started the machine")
        }
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("no answer for {} seconds", timeout.as_secs())
        }
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
            "the machine closed the connection".to_owned()
        }
        _ => error.to_string(),
    }
}
