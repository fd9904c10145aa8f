//! Packets to the guest.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmbus_device::{Payload, SavedPacket};
use vmbus_ring::{TransferRange, transfer_pages_header};

use crate::protocol::nvsp::{HostMessage, NvspVersion, SendTableMessage};

/// The payload of a packet to the guest, and the header that names its ranges of the receive
/// buffer if it has any. It is small, as a channel moves thousands of constants for each other one.
#[derive(Debug)]
pub(crate) struct NetPacket(Content);

#[derive(Debug)]
enum Content {
    /// A payload that is the same for all packets of its kind.
    Constant(&'static [u8]),
    /// A payload that is the same for all packets with ranges.
    Frames(&'static [u8], Header),
    Message(Box<HostMessage>),
    SendTable(Box<SendTableMessage>),
    Owned(Box<Owned>),
}

/// A message with ranges, or a restored packet.
#[derive(Debug)]
struct Owned {
    payload: Box<[u8]>,
    header: Header,
}

impl NetPacket {
    /// Returns a completion without payload.
    pub(crate) fn empty() -> Self {
        Self::constant(&[])
    }

    /// Returns a packet with this payload.
    #[inline]
    pub(crate) fn constant(payload: &'static [u8]) -> Self {
        Self(Content::Constant(payload))
    }

    /// Returns a packet with an NVSP message.
    pub(crate) fn message(message: HostMessage) -> Self {
        Self(Content::Message(Box::new(message)))
    }

    /// Returns a packet with the send indirection table.
    pub(crate) fn send_table(message: SendTableMessage) -> Self {
        Self(Content::SendTable(Box::new(message)))
    }

    /// Returns a packet with frames in `ranges` of the buffer `set`.
    pub(crate) fn frames(
        version: NvspVersion,
        set: u16,
        ranges: &[TransferRange],
        headers: &HeaderPool,
    ) -> Self {
        Self(Content::Frames(HostMessage::frames(version), headers.header(set, ranges)))
    }

    /// Returns a packet with `ranges` of the buffer `set`.
    pub(crate) fn transfer(
        message: &HostMessage,
        set: u16,
        ranges: &[TransferRange],
        headers: &HeaderPool,
    ) -> Self {
        let (payload, header) = (message.bytes().into(), headers.header(set, ranges));
        Self(Content::Owned(Box::new(Owned { payload, header })))
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
        match &self.0 {
            Content::Constant(bytes) | Content::Frames(bytes, _) => bytes,
            Content::Message(message) => message.bytes(),
            Content::SendTable(message) => message.bytes(),
            Content::Owned(owned) => &owned.payload,
        }
    }
}

impl Payload for NetPacket {
    fn from_saved(bytes: &[u8]) -> Option<Self> {
        Self::from_saved_transfer(bytes, &[])
    }

    #[inline]
    fn transfer_pages(&self) -> &[u8] {
        match &self.0 {
            Content::Constant(_) | Content::Message(_) | Content::SendTable(_) => &[],
            Content::Frames(_, header) => header.bytes(),
            Content::Owned(owned) => owned.header.bytes(),
        }
    }

    fn from_saved_transfer(bytes: &[u8], header: &[u8]) -> Option<Self> {
        let header = HeaderPool::default().pooled(|to| to.extend_from_slice(header));
        Some(Self(Content::Owned(Box::new(Owned { payload: bytes.into(), header }))))
    }
}

/// Memory of headers, which packets return when they are in a ring: a warm channel allocates none.
/// Clones share the memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeaderPool(Arc<Mutex<Vec<Box<HeaderMemory>>>>);

/// A header of a packet. `None`: its memory was returned.
#[derive(Debug)]
struct Header(Option<Box<HeaderMemory>>);

#[derive(Debug, Default)]
struct HeaderMemory {
    bytes: Vec<u8>,
    /// The pool to which the memory returns. `None` while it is there.
    pool: Option<HeaderPool>,
}

impl HeaderPool {
    fn header(&self, set: u16, ranges: &[TransferRange]) -> Header {
        self.pooled(|bytes| transfer_pages_header(set, ranges, bytes))
    }

    /// Returns a header that `fill` writes to empty memory.
    fn pooled(&self, fill: impl FnOnce(&mut Vec<u8>)) -> Header {
        let free = self.lock().pop();
        let mut memory = free.unwrap_or_default();
        memory.pool = Some(self.clone());
        memory.bytes.clear();
        fill(&mut memory.bytes);
        Header(Some(memory))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Box<HeaderMemory>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Header {
    #[inline]
    fn bytes(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |memory| &memory.bytes)
    }
}

impl Drop for Header {
    fn drop(&mut self) {
        if let Some(mut memory) = self.0.take()
            && let Some(pool) = memory.pool.take()
        {
            pool.lock().push(memory);
        }
    }
}
