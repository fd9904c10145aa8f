//! Defects of data messages (netvsc section 4).

use super::super::limits::MAX_PACKETS_PER_MESSAGE;

/// A defect of a message of the guest. The message is completed with
/// [`NvspStatus::Failure`](crate::protocol::nvsp::NvspStatus::Failure); the channel continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransmitError {
    /// The message ends before the header of its packet.
    #[error("{0} bytes are too few for an RNDIS packet")]
    TooShort(u32),
    /// A message on the data path is no packet.
    #[error("RNDIS message {0} is not a packet")]
    NotAPacket(u32),
    /// The packet's length is less than its header, or more than the message holds.
    #[error("an RNDIS packet of {length} bytes in {remaining} bytes")]
    Length {
        /// Length that the packet claims.
        length: u32,
        /// Bytes that the message has for it.
        remaining: u32,
    },
    /// Fields that must be 0 are not.
    #[error("an RNDIS packet with out-of-band data")]
    OutOfBand,
    /// The frame is not within its packet.
    #[error("a frame outside of its RNDIS packet")]
    FrameRange,
    /// The frame is shorter than an Ethernet header or longer than the configured maximum.
    #[error("a frame of {0} bytes")]
    FrameLength(u32),
    /// Per-packet information is malformed, outside of the packet, or beyond its first 256 bytes.
    #[error("malformed per-packet information")]
    PacketInfo,
    /// A checksum request contradicts itself.
    #[error("a contradictory checksum request")]
    Checksum,
    /// Segments of 0 bytes.
    #[error("a segmentation request with a segment size of 0")]
    SegmentSize,
    /// The transport header is not within the frame, or overlaps the headers before it.
    #[error("a transport header at offset {0}")]
    TransportOffset(u32),
    /// More packets than the host accepts in one message.
    #[error("more than {MAX_PACKETS_PER_MESSAGE} RNDIS packets in one message")]
    TooManyPackets,
}
