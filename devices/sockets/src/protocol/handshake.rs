//! The handshake of a host program that connects to the guest, as Firecracker and Cloud Hypervisor
//! have it (A6).

use std::fmt;

use thiserror::Error;
use vmbus_protocol::Guid;

use super::service::service_of;

/// Maximum bytes of a request, with the line's end.
pub const MAX_LINE: usize = 64;

/// The service of the guest that a host program connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A port of AF_VSOCK.
    Port(u32),
    /// A service of a Windows guest.
    Service(Guid),
}

impl Target {
    /// Returns the service's GUID.
    #[must_use]
    pub fn service(self) -> Guid {
        match self {
            Self::Port(port) => service_of(port),
            Self::Service(service) => service,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "port {port}"),
            Self::Service(service) => write!(f, "service {service}"),
        }
    }
}

/// The reason why a line is not a request.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not a request: expected `CONNECT <port or GUID>` and a line end")]
pub struct BadRequest;

/// Parses `CONNECT <port>` or `CONNECT <GUID>` at the start of `bytes`. Returns the target and the
/// bytes of the line, its end included. `None`: the line's end is missing, and more bytes may come.
///
/// # Errors
/// [`BadRequest`]: another text, or more than [`MAX_LINE`] bytes without an end.
pub fn parse_request(bytes: &[u8]) -> Result<Option<(Target, usize)>, BadRequest> {
    let Some(end) = bytes.iter().take(MAX_LINE).position(|byte| *byte == b'\n') else {
        return if bytes.len() >= MAX_LINE { Err(BadRequest) } else { Ok(None) };
    };
    let line = bytes.get(..end).unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| BadRequest)?;
    let mut words = line.trim_end_matches('\r').split(' ');
    let verb = words.next().unwrap_or_default();
    let (Some(target), None) = (words.next(), words.next()) else { return Err(BadRequest) };
    if !verb.eq_ignore_ascii_case("connect") {
        return Err(BadRequest);
    }
    let is_number = !target.is_empty() && target.bytes().all(|byte| byte.is_ascii_digit());
    let target = if is_number {
        Target::Port(target.parse().map_err(|_| BadRequest)?)
    } else {
        Target::Service(target.parse().map_err(|_| BadRequest)?)
    };
    Ok(Some((target, end + 1)))
}

/// Returns the answer to a request that the guest has accepted. `endpoint`: the host's end, whose
/// first four bytes are the port that a Linux guest sees.
#[must_use]
pub fn reply(target: Target, endpoint: Guid) -> String {
    match target {
        Target::Port(_) => {
            let [a, b, c, d, ..] = endpoint.to_bytes();
            format!("OK {}\n", u32::from_le_bytes([a, b, c, d]))
        }
        Target::Service(_) => format!("OK {endpoint}\n"),
    }
}
