//! Control messages of the guest (netvsc section 6).

use super::super::bytes::{slice_at, u32_at};
use super::{OFFSET_BASE, kind};

/// A control message of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlRequest<'a> {
    /// INITIALIZE: begins the connection.
    Initialize {
        /// The guest's number for the request.
        id: u32,
        /// Major version of RNDIS.
        major: u32,
    },
    /// HALT: ends the connection. It has no answer.
    Halt,
    /// QUERY: asks for a value.
    Query {
        /// The guest's number for the request.
        id: u32,
        /// The value asked for.
        oid: u32,
    },
    /// SET: changes a value.
    Set {
        /// The guest's number for the request.
        id: u32,
        /// The value to change.
        oid: u32,
        /// The new value. `None`: it is not within the message.
        data: Option<&'a [u8]>,
    },
    /// RESET: asks for a reset of the card.
    Reset,
    /// KEEPALIVE: asks for an answer.
    Keepalive {
        /// The guest's number for the request.
        id: u32,
    },
}

/// A control message that has no answer. Its packet is completed with
/// [`NvspStatus::InvalidRndisPacket`](crate::protocol::nvsp::NvspStatus::InvalidRndisPacket).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedControl {
    /// The message ends before its last field, or is longer than its packet.
    #[error("control message {kind} of {length} bytes in {available} bytes")]
    Length {
        /// Type of the message, 0 if it is incomplete.
        kind: u32,
        /// Length that the message claims.
        length: u32,
        /// Bytes of the packet.
        available: usize,
    },
    /// The type is not one that a guest sends.
    #[error("control message {0} is unknown")]
    Unknown(u32),
}

impl<'a> ControlRequest<'a> {
    /// Parses a copy of a control message. Bytes after its length are ignored.
    ///
    /// # Errors
    /// The message cannot be answered.
    pub fn parse(message: &'a [u8]) -> Result<Self, MalformedControl> {
        let available = message.len();
        let kind = u32_at(message, 0).unwrap_or(0);
        let length = u32_at(message, 4).unwrap_or(0);
        let malformed = MalformedControl::Length { kind, length, available };
        let message = slice_at(message, 0, length).ok_or(malformed)?;
        let request = match kind {
            kind::INITIALIZE => initialize(message),
            kind::HALT => Some(Self::Halt),
            kind::QUERY => query(message),
            kind::SET => set(message),
            kind::RESET => Some(Self::Reset),
            kind::KEEPALIVE => u32_at(message, 8).map(|id| Self::Keepalive { id }),
            _ if length >= OFFSET_BASE => return Err(MalformedControl::Unknown(kind)),
            _ => None,
        };
        request.filter(|_| length >= OFFSET_BASE).ok_or(malformed)
    }
}

fn initialize(message: &[u8]) -> Option<ControlRequest<'_>> {
    Some(ControlRequest::Initialize { id: u32_at(message, 8)?, major: u32_at(message, 12)? })
}

/// The information of a query is not read: no supported OID has an argument.
fn query(message: &[u8]) -> Option<ControlRequest<'_>> {
    Some(ControlRequest::Query { id: u32_at(message, 8)?, oid: u32_at(message, 12)? })
}

fn set(message: &[u8]) -> Option<ControlRequest<'_>> {
    let [length, offset] = [u32_at(message, 16)?, u32_at(message, 20)?];
    let data = match length {
        0 => Some(&[][..]),
        _ => offset.checked_add(OFFSET_BASE).and_then(|offset| slice_at(message, offset, length)),
    };
    Some(ControlRequest::Set { id: u32_at(message, 8)?, oid: u32_at(message, 12)?, data })
}
