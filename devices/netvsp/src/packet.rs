//! Packets to the guest.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmbus_device::{Payload, SavedPacket};
use vmbus_ring::{TransferRange, transfer_pages_header};

use crate::protocol::nvsp::{HostMessage, NvspVersion, SendTableMessage};

/// The payload of a packet to the guest, and the header that names its ranges of the receive
/// buffer if it has any.
#[derive(Debug)]
pub(crate) struct NetPacket {
    body: Body,
    header: Option<Header>,
}

#[derive(Debug)]
enum Body {
    /// A payload that is the same for all packets of its kind.
    Constant(&'static [u8]),
    /// Boxed, as a channel moves thousands of constants for each message.
    Message(Box<HostMessage>),
    SendTable(Box<SendTableMessage>),
    /// A payload of a restored packet.
    Saved(Box<[u8]>),
}

impl NetPacket {
    /// Returns a completion without payload.
    pub(crate) fn empty() -> Self {
        Self::constant(&[])
    }

    /// Returns a packet with this payload.
    #[inline]
    pub(crate) fn constant(payload: &'static [u8]) -> Self {
        Self { body: Body::Constant(payload), header: None }
    }

    /// Returns a packet with an NVSP message.
    pub(crate) fn message(message: HostMessage) -> Self {
        Self { body: Body::Message(Box::new(message)), header: None }
    }

    /// Returns a packet with the send indirection table.
    pub(crate) fn send_table(message: SendTableMessage) -> Self {
        Self { body: Body::SendTable(Box::new(message)), header: None }
    }

    /// Returns a packet with frames in `ranges` of the buffer `set`.
    pub(crate) fn frames(
        version: NvspVersion,
        set: u16,
        ranges: &[TransferRange],
        headers: &HeaderPool,
    ) -> Self {
        let header = Some(headers.header(set, ranges));
        Self { body: Body::Constant(HostMessage::frames(version)), header }
    }

    /// Returns a packet with `ranges` of the buffer `set`.
    pub(crate) fn transfer(
        message: HostMessage,
        set: u16,
        ranges: &[TransferRange],
        headers: &HeaderPool,
    ) -> Self {
        Self { body: Body::Message(Box::new(message)), header: Some(headers.header(set, ranges)) }
    }
}

impl NetPacket {
    /// Returns the packet with transaction id `transaction` in its saved form.
    pub(crate) fn to_saved(&self, transaction: u64) -> SavedPacket {
        SavedPacket {
            answers: None,
            requests: Some(transaction),
            bytes: self.as_ref().to_vec(),
            transfer_pages: self.transfer_pages().to_vec(),
        }
    }
}

impl AsRef<[u8]> for NetPacket {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        match &self.body {
            Body::Constant(bytes) => bytes,
            Body::Message(message) => message.bytes(),
            Body::SendTable(message) => message.bytes(),
            Body::Saved(bytes) => bytes,
        }
    }
}

impl Payload for NetPacket {
    fn from_saved(bytes: &[u8]) -> Option<Self> {
        Some(Self { body: Body::Saved(bytes.into()), header: None })
    }

    #[inline]
    fn transfer_pages(&self) -> &[u8] {
        self.header.as_ref().map_or(&[], |header| &header.bytes)
    }

    fn from_saved_transfer(bytes: &[u8], header: &[u8]) -> Option<Self> {
        let mut packet = Self::from_saved(bytes)?;
        if !header.is_empty() {
            let pool = HeaderPool::default();
            packet.header = Some(Header { bytes: header.to_vec(), pool });
        }
        Some(packet)
    }
}

/// Memory of headers, which packets return when they are in a ring: a warm channel allocates none.
/// Clones share the memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeaderPool(Arc<Mutex<Vec<Vec<u8>>>>);

#[derive(Debug)]
struct Header {
    bytes: Vec<u8>,
    pool: HeaderPool,
}

impl HeaderPool {
    fn header(&self, set: u16, ranges: &[TransferRange]) -> Header {
        let mut bytes = self.lock().pop().unwrap_or_default();
        transfer_pages_header(set, ranges, &mut bytes);
        Header { bytes, pool: self.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Header {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.pool.lock().push(bytes);
    }
}
