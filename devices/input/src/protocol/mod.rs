//! Both protocols inside an opened channel, without I/O, threads or a clock.
//!
//! * [`keyboard`]: version, key events, LEDs. Raw packets.
//! * [`mouse`]: version, device information, reports. Packets of a pipe.
//!
//! Source: docs/spec/hid-video.md sections 2, 3 and 8.

pub mod keyboard;
pub mod mouse;
#[cfg(test)]
mod tests;

/// Maximum bytes of a guest's packet that are read. No valid message is longer.
pub const MAX_PACKET: usize = 64;

/// The error of a message that has no effect. The channel remains open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The packet is shorter than its message.
    #[error("a packet that is too short for its message")]
    Short,
    /// Not a pipe's packet with data.
    #[error("a pipe packet of type {0}")]
    Pipe(u32),
    /// No guest sends such a message.
    #[error("a message of type {0}")]
    Type(u32),
    /// The version is not supported.
    #[error("a request for version {0:#x}")]
    Version(u32),
    /// An earlier message must come first.
    #[error("a message out of order")]
    Order,
}

/// Returns the first `u32`, and the rest.
fn word(bytes: &[u8]) -> Result<(u32, &[u8]), Rejected> {
    let (word, rest) = bytes.split_first_chunk().ok_or(Rejected::Short)?;
    Ok((u32::from_le_bytes(*word), rest))
}
