//! Frames of a byte-mode pipe (A4; vmbus-core section 8).

use thiserror::Error;

/// Bytes of a frame's header: type and length of the data, u32 each.
pub const HEADER_BYTES: u32 = 8;

/// Maximum bytes of data in a frame: Linux fails with EIO beyond it.
pub const MAX_DATA: u32 = 16_384;

/// Maximum bytes of a packet to the guest without its trailer: descriptor, header, data.
pub const MAX_PACKET: u32 = 16 + HEADER_BYTES + MAX_DATA;

/// Type of a frame with data; the only one on a byte-mode pipe.
const DATA: u32 = 1;

/// A frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Data: its length in bytes, at least 1. It follows the header.
    Data(u32),
    /// The sender sends no more data (FIN).
    End,
}

/// The reason why a packet is not a frame.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum BadFrame {
    /// The packet ends before the header does.
    #[error("a packet of {0} bytes has no frame header")]
    NoHeader(usize),
    /// The type is not that of data.
    #[error("a frame of type {0} on a byte-mode pipe")]
    Type(u32),
    /// The data is longer than the packet.
    #[error("a frame claims {claimed} bytes in a packet of {packet}")]
    Length {
        /// The length in the header.
        claimed: u32,
        /// Bytes of the packet's payload.
        packet: usize,
    },
}

/// Interprets the header of a packet with `payload` bytes of payload, header included. `header`:
/// a copy of the first bytes, `None` if there are fewer.
///
/// # Errors
/// [`BadFrame`]: the connection is to be reset.
pub fn frame(header: Option<[u8; 8]>, payload: usize) -> Result<Frame, BadFrame> {
    let Some([a, b, c, d, e, f, g, h]) = header else { return Err(BadFrame::NoHeader(payload)) };
    let kind = u32::from_le_bytes([a, b, c, d]);
    let length = u32::from_le_bytes([e, f, g, h]);
    if kind != DATA {
        return Err(BadFrame::Type(kind));
    }
    let end = u64::from(length) + u64::from(HEADER_BYTES);
    if end > payload as u64 {
        return Err(BadFrame::Length { claimed: length, packet: payload });
    }
    Ok(if length == 0 { Frame::End } else { Frame::Data(length) })
}

/// Returns the header of a frame with `length` bytes of data. 0: the end of the data.
#[must_use]
pub fn data_header(length: u32) -> [u8; 8] {
    let ([a, b, c, d], [e, f, g, h]) = (DATA.to_le_bytes(), length.to_le_bytes());
    [a, b, c, d, e, f, g, h]
}

/// Returns the bytes of ring that a frame with `length` bytes of data takes: descriptor, header,
/// data, padding and trailer.
#[must_use]
pub fn total_bytes(length: u32) -> u32 {
    16 + HEADER_BYTES + length.next_multiple_of(8) + 8
}
