//! The guest's end of one storage channel.

use std::sync::Arc;

use synthvm_storvsp::InlineWorkers;
use vmbus_gpadl::GuestRam;
use vmbus_ring::{
    GpaRange, Incoming, OutPacket, Outgoing, PacketKind, WriteError, gpa_direct_header,
};
use vmm_sys_util::eventfd::EventFd;

use super::synic::TestSynic;

pub struct GuestChannel {
    pub relid: u32,
    pub gpadl: u32,
    pub first_page: usize,
    pub incoming: Incoming,
    pub outgoing: Outgoing,
    pub doorbell: EventFd,
    pub synic: Arc<TestSynic>,
    pub memory: GuestRam,
    /// Events of the channel that were taken into account.
    pub spoken: u64,
    /// Who serves the channel while the guest waits, when no threads do.
    pub inline: Option<InlineWorkers>,
}

/// A packet from the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FromHost {
    pub kind: PacketKind,
    pub transaction_id: u64,
    pub payload: Vec<u8>,
}

/// Guest memory that a request names: bytes from an offset into the first of some pages.
#[derive(Clone, Debug)]
pub struct Memory {
    pub offset: u32,
    pub count: u32,
    pub pages: Vec<u64>,
}

impl Memory {
    /// `count` bytes from the start of page `first` on.
    pub fn at(first: u64, count: u32) -> Self {
        let pages = u64::from(count).div_ceil(4096);
        Self { offset: 0, count, pages: (first..first + pages).collect() }
    }
}

impl GuestChannel {
    /// Sends a request, with memory or without.
    pub fn send(&mut self, transaction_id: u64, payload: &[u8], memory: &[Memory]) {
        assert!(self.try_send(transaction_id, payload, memory), "the ring is full");
    }

    /// As [`GuestChannel::send`]; false when the ring is full.
    pub fn try_send(&mut self, transaction_id: u64, payload: &[u8], memory: &[Memory]) -> bool {
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

    pub fn ring_doorbell(&self) {
        self.doorbell.write(1).unwrap();
    }

    /// The next packet, when it is there.
    pub fn try_receive(&mut self) -> Option<FromHost> {
        let mut batch = self.incoming.batch().unwrap();
        let received = batch.next().unwrap().map(|packet| {
            let mut payload = vec![0; packet.payload_len()];
            packet.read_payload(&mut payload);
            assert!(packet.payload_len() + 16 <= 80, "Linux would lose its place in the ring");
            FromHost { kind: packet.kind(), transaction_id: packet.transaction_id(), payload }
        });
        if received.is_some() && batch.commit() {
            self.ring_doorbell();
        }
        received
    }

    /// The next packet.
    pub fn receive(&mut self) -> FromHost {
        loop {
            if let Some(packet) = self.try_receive() {
                return packet;
            }
            if let Some(inline) = &self.inline {
                let spoken = self.synic.events(self.relid as u16);
                inline.serve();
                assert!(
                    spoken != self.synic.events(self.relid as u16),
                    "nobody will ever say more"
                );
                continue;
            }
            self.spoken = self.synic.wait_event(self.relid as u16, self.spoken);
        }
    }

    /// The next packet, which must be the completion of `transaction_id`.
    pub fn completion(&mut self, transaction_id: u64) -> Vec<u8> {
        let packet = self.receive();
        assert_eq!((packet.kind, packet.transaction_id), (PacketKind::Completion, transaction_id));
        packet.payload
    }

    /// Sends a request and waits for its completion.
    pub fn ask(&mut self, payload: &[u8], memory: &[Memory]) -> Vec<u8> {
        let id = 0xFFFF_FFFF_FFFF_FFFD;
        self.send(id, payload, memory);
        self.completion(id)
    }
}
