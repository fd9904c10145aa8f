//! Packets and rings.
//!
//! A device on the [runtime](crate::runtime) needs [`Packet`] only. One that drives its channel
//! itself has both rings in [`Channel::incoming`](crate::Channel::incoming) and
//! [`Channel::outgoing`](crate::Channel::outgoing).

#[doc(inline)]
pub use vmbus_ring::{
    GpaRange, Incoming, MapError, Mode, OutPacket, Outgoing, Packet, PacketError, PacketKind,
    ReadBatch, RingError, RingMemory, RingSnapshot, RingWatch, SpaceWait, TransferRange,
    WriteBatch, WriteError, gpa_direct_header, limits, transfer_pages_header,
};
