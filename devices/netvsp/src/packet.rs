//! Packets to the guest.

use vmbus_device::Payload;
use vmbus_ring::{TransferRange, transfer_pages_header};

use crate::protocol::nvsp::HostMessage;

/// Most frames in one packet. Larger batches become several packets.
pub(crate) const MAX_FRAMES: usize = 32;

/// Bytes of the header with that many ranges.
const MAX_HEADER: usize = 8 + 8 * MAX_FRAMES;

/// The payload of a packet to the guest, and its ranges of the receive buffer if it has any.
#[derive(Clone)]
pub(crate) struct NetPacket {
    message: Option<HostMessage>,
    header: [u8; MAX_HEADER],
    header_length: u16,
}

impl NetPacket {
    /// Returns a completion without payload.
    pub(crate) fn empty() -> Self {
        Self { message: None, header: [0; MAX_HEADER], header_length: 0 }
    }

    /// Returns a packet with an NVSP message.
    pub(crate) fn message(message: HostMessage) -> Self {
        Self { message: Some(message), ..Self::empty() }
    }

    /// Returns a packet with `ranges` of the buffer `set`, at most [`MAX_FRAMES`].
    pub(crate) fn transfer(message: HostMessage, set: u16, ranges: &[TransferRange]) -> Self {
        let mut bytes = Vec::with_capacity(MAX_HEADER);
        transfer_pages_header(set, ranges.get(..MAX_FRAMES).unwrap_or(ranges), &mut bytes);
        let mut packet = Self::message(message);
        packet.header[..bytes.len()].copy_from_slice(&bytes);
        packet.header_length = bytes.len() as u16;
        packet
    }
}

impl AsRef<[u8]> for NetPacket {
    fn as_ref(&self) -> &[u8] {
        self.message.as_ref().map(HostMessage::bytes).unwrap_or_default()
    }
}

impl Payload for NetPacket {
    /// No card is saved yet.
    fn from_saved(_: &[u8]) -> Option<Self> {
        None
    }

    fn transfer_pages(&self) -> &[u8] {
        &self.header[..usize::from(self.header_length)]
    }
}
