//! The headers that all services share: the pipe's and the integration component's.

use super::Status;
use super::negotiation::Agreed;

/// Bytes of both headers.
pub const HEADERS: usize = 28;

/// Bytes of the pipe's header.
const PIPE_HEADER: usize = 8;

/// Maximum bytes of a guest's packet that are read: the largest response is that of IP addresses,
/// 7,456 bytes. Linux has buffers of at most 16 KiB.
pub const MAX_PACKET: usize = 16 << 10;

/// The type of a pipe's packet with data.
const PIPE_DATA: u32 = 1;

/// ICMSGHDRFLAG_TRANSACTION and ICMSGHDRFLAG_REQUEST.
const REQUEST: u8 = 3;
/// ICMSGHDRFLAG_RESPONSE.
const RESPONSE: u8 = 4;

/// The error of a packet without valid headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The packet ends within its headers, or before the end that its pipe header states.
    #[error("a packet of {0} bytes, which is too short")]
    Short(usize),
    /// Not a pipe's packet with data.
    #[error("a pipe packet of type {0}")]
    Pipe(u32),
    /// The message is no response.
    #[error("a message with the flags {0:#x}, which is no response")]
    Flags(u8),
}

/// A response of the guest, of which only the headers are validated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RawResponse<'a> {
    pub(super) kind: u16,
    pub(super) status: Status,
    pub(super) transaction: u8,
    /// The bytes after the headers, possibly with padding.
    pub(super) body: &'a [u8],
}

impl<'a> RawResponse<'a> {
    /// Reads a packet. The message size of the second header is ignored, as guests disagree about
    /// it.
    ///
    /// # Errors
    /// [`Malformed`].
    pub(super) fn read(packet: &'a [u8]) -> Result<Self, Malformed> {
        let short = Malformed::Short(packet.len());
        let (pipe, rest) = packet.split_first_chunk::<PIPE_HEADER>().ok_or(short)?;
        let [p0, p1, p2, p3, s0, s1, s2, s3] = *pipe;
        let kind = u32::from_le_bytes([p0, p1, p2, p3]);
        if kind != PIPE_DATA {
            return Err(Malformed::Pipe(kind));
        }
        let size = u32::from_le_bytes([s0, s1, s2, s3]);
        let size = usize::try_from(size).map_err(|_| short)?;
        let message = rest.get(..size).ok_or(short)?;
        let (header, body) =
            message.split_first_chunk::<{ HEADERS - PIPE_HEADER }>().ok_or(short)?;
        // Framework version, type, message version, size, status, transaction id, flags, reserved.
        let [_, _, _, _, t0, t1, _, _, _, _, _, _, r0, r1, r2, r3, transaction, flags, _, _] =
            *header;
        if flags & RESPONSE == 0 {
            return Err(Malformed::Flags(flags));
        }
        Ok(Self {
            kind: u16::from_le_bytes([t0, t1]),
            status: Status(u32::from_le_bytes([r0, r1, r2, r3])),
            transaction,
            body,
        })
    }
}

/// Returns a request with its headers. Bodies have at most [`MAX_PACKET`] bytes.
pub(super) fn request(kind: u16, agreed: Agreed, transaction: u8, body: &[u8]) -> Vec<u8> {
    let length = |headers: usize| u32::try_from(body.len() + headers).unwrap_or(u32::MAX);
    let size = u16::try_from(body.len()).unwrap_or(u16::MAX);
    let mut packet = Vec::with_capacity(HEADERS + body.len());
    packet.extend(PIPE_DATA.to_le_bytes());
    packet.extend(length(HEADERS - PIPE_HEADER).to_le_bytes());
    packet.extend(agreed.framework.to_bytes());
    packet.extend(kind.to_le_bytes());
    packet.extend(agreed.message.to_bytes());
    packet.extend(size.to_le_bytes());
    packet.extend(Status::OK.0.to_le_bytes());
    packet.extend([transaction, REQUEST, 0, 0]);
    packet.extend(body);
    packet
}
