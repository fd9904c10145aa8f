//! A ring with both its ends in this process, and its raw bytes in the view of a hostile peer.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use vm_memory::{Bytes, GuestAddress};
use vmbus_ring::{
    Incoming, Mode, OutPacket, Outgoing, PacketKind, PlainMemory, ReadBatch, RingError, WriteError,
};

pub const PAGE: u64 = 4096;
pub const BOTH_MODES: [Mode; 2] = [Mode::Mirrored, Mode::Paged];

/// Byte offsets in the control page.
pub const WRITE_INDEX: u64 = 0;
pub const READ_INDEX: u64 = 4;
pub const MASK: u64 = 8;
pub const PENDING: u64 = 12;
pub const FEATURES: u64 = 64;

pub struct TestRing {
    pub memory: PlainMemory,
    pub pages: Vec<u64>,
    pub incoming: Incoming,
    pub outgoing: Outgoing,
}

/// Returns a ring of `data_pages` neighbouring pages, with both ends attached and the consumer
/// unmasked.
pub fn ring(data_pages: usize, mode: Mode) -> TestRing {
    ring_of((0..=data_pages as u64).collect(), mode)
}

/// Returns a ring of pages in the given order; the first one is its control page.
pub fn ring_of(pages: Vec<u64>, mode: Mode) -> TestRing {
    let memory = PlainMemory::new(*pages.iter().max().unwrap() as usize + 1).unwrap();
    ring_in(memory, pages, mode)
}

pub fn ring_in(memory: PlainMemory, pages: Vec<u64>, mode: Mode) -> TestRing {
    let map = || memory.ring(&pages, mode).unwrap();
    map().reset();
    let mut incoming = Incoming::new(map()).unwrap();
    let outgoing = Outgoing::new(map()).unwrap();
    assert!(!incoming.unmask().unwrap());
    TestRing { memory, pages, incoming, outgoing }
}

impl TestRing {
    pub fn data_size(&self) -> u32 {
        self.incoming.data_size()
    }

    /// Returns the guest address of a control field.
    pub fn control(&self, field: u64) -> GuestAddress {
        GuestAddress(self.pages[0] * PAGE + field)
    }

    pub fn field(&self, field: u64) -> u32 {
        self.memory.ram().memory().read_obj(self.control(field)).unwrap()
    }

    pub fn set_field(&self, field: u64, value: u32) {
        self.memory.ram().memory().write_obj(value, self.control(field)).unwrap();
    }

    /// Returns the guest address of byte `offset` of the data.
    pub fn data(&self, offset: u32) -> GuestAddress {
        let page = self.pages[1 + offset as usize / 4096];
        GuestAddress(page * PAGE + u64::from(offset) % PAGE)
    }

    pub fn word(&self, offset: u32) -> u64 {
        self.memory.ram().memory().read_obj(self.data(offset % self.data_size())).unwrap()
    }

    pub fn set_word(&self, offset: u32, value: u64) {
        self.memory.ram().memory().write_obj(value, self.data(offset % self.data_size())).unwrap();
    }

    /// Moves both indices of the empty ring to `offset` by passing packets through it.
    pub fn advance_to(&mut self, offset: u32) {
        let size = self.data_size();
        let mut distance = (offset + size - self.field(WRITE_INDEX)) % size;
        if (1..24).contains(&distance) {
            // The smallest packet takes 24 bytes, so the distance must be one round longer.
            distance += size;
        }
        while distance != 0 {
            let mut step = distance.min(size / 2);
            if (1..24).contains(&(distance - step)) {
                step -= 24;
            }
            self.pass(step - 24);
            distance -= step;
        }
    }

    fn pass(&mut self, payload: u32) {
        write_one(&mut self.outgoing, 0, &vec![0xEE; payload as usize]).unwrap();
        assert_eq!(drain(&mut self.incoming).unwrap().0.len(), 1);
    }
}

/// A copy of one packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub kind: PacketKind,
    pub transaction_id: u64,
    pub completion_requested: bool,
    pub payload: Vec<u8>,
}

pub fn write_one(outgoing: &mut Outgoing, id: u64, payload: &[u8]) -> Result<bool, WriteError> {
    let mut batch = outgoing.batch()?;
    batch.write(&OutPacket::in_band(id, &[payload]))?;
    Ok(batch.commit())
}

pub fn take(batch: &mut ReadBatch<'_>) -> Result<Option<Seen>, RingError> {
    Ok(batch.next()?.map(|packet| {
        let mut payload = vec![0; packet.payload_len()];
        assert_eq!(packet.read_payload(&mut payload), payload.len());
        let pieces: Vec<u8> = packet
            .payload_slices()
            .flat_map(|slice| {
                let mut bytes = vec![0; slice.len()];
                slice.copy_to(&mut bytes);
                bytes
            })
            .collect();
        assert_eq!(pieces, payload, "pieces and copy agree");
        Seen {
            kind: packet.kind(),
            transaction_id: packet.transaction_id(),
            completion_requested: packet.completion_requested(),
            payload,
        }
    }))
}

/// Returns all packets in the ring, and whether the producer must be signalled after the commit.
pub fn drain(incoming: &mut Incoming) -> Result<(Vec<Seen>, bool), RingError> {
    let mut seen = Vec::new();
    let mut batch = incoming.batch()?;
    while let Some(packet) = take(&mut batch)? {
        seen.push(packet);
    }
    Ok((seen, batch.commit()))
}

/// Returns `payload` in the form that the reader sees: padded to 8 bytes.
pub fn padded(payload: &[u8]) -> Vec<u8> {
    let mut padded = payload.to_vec();
    padded.resize(payload.len().next_multiple_of(8), 0);
    padded
}
