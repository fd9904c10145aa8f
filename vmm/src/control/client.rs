//! The other end: what `synthvm inspect` and `synthvm control` use, and any program in Rust can.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::protocol::{Reply, Request};
use crate::inspect::InspectReport;

/// How long an answer may take. Answers are snapshots: a machine that needs longer hangs.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The longest answer that is read. A report of 64 vCPUs and 16,000 GPADLs has about 2 MiB.
const MAX_REPLY_BYTES: u64 = 64 << 20;

/// A request that was not done: the socket and why.
#[derive(Debug, thiserror::Error)]
#[error("{}: {message}", .path.display())]
pub struct ClientError {
    path: PathBuf,
    message: String,
}

/// A connection to a running machine.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

impl Client {
    /// Connects to the machine that listens at `path`.
    ///
    /// # Errors
    /// There is no such socket, nobody listens there, or it belongs to another user.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let fail = |message| ClientError { path: path.to_owned(), message };
        let stream = UnixStream::connect(path).map_err(|error| fail(explain(&error)))?;
        let limited =
            stream.set_read_timeout(Some(TIMEOUT)).and_then(|()| stream.set_write_timeout(Some(TIMEOUT)));
        limited.map_err(|error| fail(error.to_string()))?;
        Ok(Client { stream: BufReader::new(stream), path: path.to_owned() })
    }

    /// Asks for one thing and waits for its answer.
    ///
    /// # Errors
    /// The machine refused (its own words), is gone, or does not answer.
    pub fn request(&mut self, request: &Request) -> Result<Value, ClientError> {
        let reply = self.exchange(request).map_err(|error| self.fail(explain(&error)))?;
        match reply {
            Reply { ok: true, value, .. } => Ok(value.unwrap_or(Value::Null)),
            Reply { ok: false, error, .. } => Err(self.fail(error.unwrap_or_else(|| "refused".to_owned()))),
        }
    }

    /// Asks for a report.
    ///
    /// # Errors
    /// As [`Client::request`]; or the machine is another version of SynthVM whose report cannot be read.
    pub fn inspect(&mut self) -> Result<InspectReport, ClientError> {
        let value = self.request(&Request::Inspect {})?;
        serde_json::from_value(value)
            .map_err(|error| self.fail(format!("sent a report of another shape: {error}")))
    }

    fn exchange(&mut self, request: &Request) -> io::Result<Reply> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)?;
        let mut answer = Vec::new();
        (&mut self.stream).take(MAX_REPLY_BYTES).read_until(b'\n', &mut answer)?;
        if answer.last() != Some(&b'\n') {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the machine ended before it answered"));
        }
        Ok(serde_json::from_slice(&answer)?)
    }

    fn fail(&self, message: String) -> ClientError {
        ClientError { path: self.path.clone(), message }
    }
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no such socket; start the machine with --control PATH".to_owned()
        }
        io::ErrorKind::ConnectionRefused => "nobody listens there; the machine has ended".to_owned(),
        io::ErrorKind::PermissionDenied => {
            format!("{error}; the socket is for the user who started the machine")
        }
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("no answer for {} seconds", TIMEOUT.as_secs())
        }
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => "the machine hung up".to_owned(),
        _ => error.to_string(),
    }
}
