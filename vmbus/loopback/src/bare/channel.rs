//! The guest's end of one channel.

use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress};
use vmbus_gpadl::GuestRam;
use vmbus_ring::{
    GpaRange, Incoming, OutPacket, Outgoing, PacketKind, TransferRange, WriteError,
    gpa_direct_header,
};
use vmm_sys_util::eventfd::EventFd;

use super::Serve;
use super::synic::CountingSynic;

/// An open channel: its rings, its doorbell and its interrupts.
#[non_exhaustive]
pub struct BareChannel {
    /// The channel's number.
    pub relid: u32,
    /// The GPADL of the rings.
    pub gpadl: u32,
    /// First page of the rings: guest to host, then host to guest.
    pub first_page: usize,
    /// The ring from the host.
    pub incoming: Incoming,
    /// The ring to the host.
    pub outgoing: Outgoing,
    /// Signals the host.
    pub doorbell: EventFd,
    /// Counts the host's signals.
    pub synic: Arc<CountingSynic>,
    /// Guest memory.
    pub memory: GuestRam,
    /// Serves the channel while the guest waits. `None`: a thread does.
    pub serve: Option<Serve>,
    /// Signals of the channel that [`BareChannel::receive`] has handled.
    pub(super) events_seen: u64,
}

/// A packet from the host.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostPacket {
    /// Its kind.
    pub kind: PacketKind,
    /// Its transaction id.
    pub transaction_id: u64,
    /// Its payload, with the padding to 8 bytes.
    pub payload: Vec<u8>,
    /// The buffer that it names and the parts of it. `None`: it is no transfer-pages packet.
    pub transfer: Option<(u16, Vec<TransferRange>)>,
}

/// A range of guest memory that a packet names.
#[derive(Clone, Debug)]
pub struct GuestRange {
    /// Offset of the first byte in the first page.
    pub offset: u32,
    /// Bytes.
    pub count: u32,
    /// Page numbers.
    pub pages: Vec<u64>,
}

impl GuestRange {
    /// Returns `count` bytes from the start of page `first` on.
    #[must_use]
    pub fn at(first: u64, count: u32) -> Self {
        let pages = u64::from(count).div_ceil(4096);
        Self { offset: 0, count, pages: (first..first + pages).collect() }
    }
}

impl BareChannel {
    /// Sends a packet that requests a completion: GPA-direct if it names `memory`, else in-band.
    ///
    /// # Panics
    /// The ring is full.
    pub fn send(&mut self, transaction_id: u64, payload: &[u8], memory: &[GuestRange]) {
        assert!(self.try_send(transaction_id, payload, memory), "the ring is full");
    }

    /// As [`BareChannel::send`]. Returns false if the ring is full.
    pub fn try_send(&mut self, transaction_id: u64, payload: &[u8], memory: &[GuestRange]) -> bool {
        let payload = [payload];
        let packet = OutPacket::request(transaction_id, &payload);
        let mut header = Vec::new();
        let ranges: Vec<_> = memory
            .iter()
            .map(|one| GpaRange {
                byte_count: one.count,
                byte_offset: one.offset,
                pages: &one.pages,
            })
            .collect();
        gpa_direct_header(&ranges, &mut header);
        let packet = if memory.is_empty() {
            packet
        } else {
            packet.with_header(PacketKind::GpaDirect, &header)
        };
        self.try_write(&packet)
    }

    /// Writes any packet, and signals the host if it must be. Returns false if the ring is full.
    ///
    /// # Panics
    /// The packet cannot be written at all.
    pub fn try_write(&mut self, packet: &OutPacket<'_>) -> bool {
        let mut batch = self.outgoing.batch().unwrap();
        match batch.write(packet) {
            Ok(()) => {}
            Err(WriteError::Full { .. }) => return false,
            Err(error) => panic!("{error}"),
        }
        if batch.commit() {
            self.ring_doorbell();
        }
        true
    }

    /// Signals the host.
    pub fn ring_doorbell(&self) {
        self.doorbell.write(1).unwrap();
    }

    /// Returns the next packet, if there is one.
    pub fn try_receive(&mut self) -> Option<HostPacket> {
        let mut batch = self.incoming.batch().unwrap();
        let received = batch.next().unwrap().map(|packet| {
            let mut payload = vec![0; packet.payload_len()];
            packet.read_payload(&mut payload);
            let mut ranges = Vec::new();
            let transfer = (packet.kind() == PacketKind::TransferPages)
                .then(|| (packet.transfer_pages(&mut ranges).unwrap(), ranges));
            let transaction_id = packet.transaction_id();
            HostPacket { kind: packet.kind(), transaction_id, payload, transfer }
        });
        if received.is_some() && batch.commit() {
            self.ring_doorbell();
        }
        received
    }

    /// Returns the next packet, and waits for it.
    ///
    /// # Panics
    /// None arrives: within a minute, or from the workers that [`BareChannel::serve`] runs.
    pub fn receive(&mut self) -> HostPacket {
        loop {
            if let Some(packet) = self.try_receive() {
                return packet;
            }
            if let Some(serve) = &self.serve {
                let seen = self.synic.events(self.relid as u16);
                serve();
                assert!(seen != self.synic.events(self.relid as u16), "no worker has sent any");
                continue;
            }
            self.events_seen = self.synic.wait_event(self.relid as u16, self.events_seen);
        }
    }

    /// Returns the payload of the next packet, which must be the completion of `transaction_id`.
    ///
    /// # Panics
    /// It is another packet.
    pub fn completion(&mut self, transaction_id: u64) -> Vec<u8> {
        let packet = self.receive();
        assert_eq!((packet.kind, packet.transaction_id), (PacketKind::Completion, transaction_id));
        packet.payload
    }

    /// Sends a packet and returns the payload of its completion.
    pub fn ask(&mut self, payload: &[u8], memory: &[GuestRange]) -> Vec<u8> {
        let id = 0xFFFF_FFFF_FFFF_FFFD;
        self.send(id, payload, memory);
        self.completion(id)
    }

    /// Writes `bytes` to guest memory, `offset` bytes after the start of page `page`.
    pub fn poke(&self, page: u64, offset: u64, bytes: &[u8]) {
        self.memory.memory().write_slice(bytes, GuestAddress(page * 4096 + offset)).unwrap();
    }

    /// Returns `length` bytes of guest memory, `offset` bytes after the start of page `page`.
    #[must_use]
    pub fn peek(&self, page: u64, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.memory().read_slice(&mut bytes, GuestAddress(page * 4096 + offset)).unwrap();
        bytes
    }
}
