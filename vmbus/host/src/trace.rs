//! Tracing of a bus: a copy of each message, and of the begin of each packet.

use std::sync::Arc;

use vmbus_protocol::message::Direction;
use vmbus_ring::{Packet, PacketKind};

/// Bytes of a packet's payload that a trace gets at most.
pub const MAX_TRACED_PAYLOAD: usize = 64;

/// A receiver of a bus's traffic. vCPUs and workers call it: it must not block.
pub trait BusTrace: Send + Sync {
    /// Takes a message, header included, in the order in which the bus handles messages.
    fn message(&self, direction: Direction, message: &[u8]);

    /// Takes a packet of an open channel, in the order of its ring.
    fn packet(&self, packet: &TracedPacket<'_>);
}

/// A packet in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracedPacket<'a> {
    /// The receiver.
    pub direction: Direction,
    /// The channel.
    pub relid: u32,
    /// The subchannel number: 0 for the primary.
    pub subchannel: u16,
    /// The kind.
    pub kind: PacketKind,
    /// The sender's id for the exchange.
    pub transaction_id: u64,
    /// Whether the sender expects a completion.
    pub completion_requested: bool,
    /// Bytes of the payload.
    pub payload_len: usize,
    /// The first bytes of the payload, up to [`MAX_TRACED_PAYLOAD`].
    pub payload: &'a [u8],
}

/// The trace of one open channel.
#[derive(Clone)]
pub struct ChannelTrace {
    sink: Arc<dyn BusTrace>,
    relid: u32,
    subchannel: u16,
}

impl ChannelTrace {
    pub(crate) fn new(sink: Arc<dyn BusTrace>, relid: u32, subchannel: u16) -> Self {
        ChannelTrace { sink, relid, subchannel }
    }

    /// Takes a packet of the guest. The guest can change the bytes in the ring, so they need not
    /// be those that the device reads.
    #[cold]
    #[inline(never)]
    pub fn received(&self, packet: &Packet<'_>) {
        let mut bytes = [0; MAX_TRACED_PAYLOAD];
        let len = packet.read_payload(&mut bytes);
        self.sink.packet(&TracedPacket {
            direction: Direction::ToHost,
            relid: self.relid,
            subchannel: self.subchannel,
            kind: packet.kind(),
            transaction_id: packet.transaction_id(),
            completion_requested: packet.completion_requested(),
            payload_len: packet.payload_len(),
            payload: bytes.get(..len).unwrap_or_default(),
        });
    }

    /// Takes a packet that was written for the guest.
    #[cold]
    #[inline(never)]
    pub fn sent(
        &self,
        kind: PacketKind,
        transaction_id: u64,
        completion_requested: bool,
        payload: &[u8],
    ) {
        let len = payload.len().min(MAX_TRACED_PAYLOAD);
        self.sink.packet(&TracedPacket {
            direction: Direction::ToGuest,
            relid: self.relid,
            subchannel: self.subchannel,
            kind,
            transaction_id,
            completion_requested,
            payload_len: payload.len(),
            payload: payload.get(..len).unwrap_or_default(),
        });
    }
}
