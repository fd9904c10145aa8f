//! One connection: one request, and its answer or its WebSocket.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tracing::debug;
use tungstenite::WebSocket;
use tungstenite::protocol::Role;

use crate::bridge::websocket_config;
use crate::http::{Head, Response, parse, switch_to_websocket};
use crate::server::Shared;
use crate::site::{Answer, Channel};
use crate::{bridge, control};

/// Time for the whole head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for each part of an answer to leave.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves a connection until it ends.
pub(crate) fn serve(mut stream: TcpStream, shared: &Shared) {
    if let Err(error) = answer(&mut stream, shared) {
        debug!("browser console: a connection ended: {error}");
    }
}

fn answer(stream: &mut TcpStream, shared: &Shared) -> io::Result<()> {
    // On some systems an accepted socket inherits the listener's mode.
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let request = match read_head(stream)? {
        Head::Whole(request) => request,
        Head::Refused(status) => return respond(stream, &Response::text(status, "Refused.")),
        Head::Partial => return respond(stream, &Response::text(408, "Too slow.")),
    };
    match shared.site.answer(&request) {
        Answer::Response(response) => respond(stream, &response),
        Answer::WebSocket { channel, key } => {
            let Some(_counted) = shared.count_websocket() else {
                return respond(stream, &Response::text(503, "Too many viewers."));
            };
            websocket(stream, channel, &key, shared)
        }
    }
}

/// Reads the head of a request, and nothing of what follows it.
fn read_head(stream: &mut TcpStream) -> io::Result<Head> {
    let end = Instant::now() + HEAD_TIMEOUT;
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Head::Partial);
        }
        stream.set_read_timeout(Some(left))?;
        let length = match stream.read(&mut chunk) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => length,
            Err(error) if is_timeout(&error) => return Ok(Head::Partial),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        bytes.extend_from_slice(&chunk[..length]);
        // A client that is served in order sends nothing more before the answer.
        match parse(&bytes) {
            Head::Partial => {}
            head => return Ok(head),
        }
    }
}

fn respond(stream: &mut TcpStream, response: &Response) -> io::Result<()> {
    stream.write_all(&response.bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    // Bytes that were not read would make the system discard the answer.
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let _ = stream.read(&mut [0; 4096]);
    Ok(())
}

fn websocket(
    stream: &mut TcpStream,
    channel: Channel,
    key: &str,
    shared: &Shared,
) -> io::Result<()> {
    let opened = match channel {
        Channel::Screen => shared.machine.open_screen().map(Some),
        Channel::Serial => shared.machine.open_serial().map(Some),
        Channel::Control => Ok(None),
    };
    let backend = match opened {
        Ok(backend) => backend,
        Err(cause) => return respond(stream, &Response::text(503, &cause)),
    };
    stream.write_all(&switch_to_websocket(key))?;
    let websocket = WebSocket::from_raw_socket(&*stream, Role::Server, Some(websocket_config()));
    match backend {
        Some(backend) => bridge::run(websocket, backend),
        None => control::run(websocket, &*shared.machine),
    }
}

/// Returns whether an error means that a read or write with a timeout has not finished in time.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
