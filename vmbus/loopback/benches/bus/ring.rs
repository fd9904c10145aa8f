//! One thread that writes packets and reads them: the cost of the ring when no other processor has
//! its cache lines.

use std::hint::black_box;

use vmbus_gpadl::GuestBuffer;
use vmbus_ring::{
    GpaRange, Incoming, Mode, OutPacket, Outgoing, PacketKind, PlainMemory, gpa_direct_header,
};

use crate::clock::best_of;
use crate::counting::counted;
use crate::limits;
use crate::number::Number;

/// Data pages: 60 KiB, like a channel of a small guest.
pub(crate) const DATA_PAGES: usize = 15;
/// Data pages of rings that must hold 16 packets of 4 KiB or one of 64 KiB.
const MANY_DATA_PAGES: usize = 31;
/// Pages that GPA-direct packets may name.
const SHARED_PAGES: u64 = 128;
/// Payload of a GPA-direct packet: a storage request.
const REQUEST: [u8; 48] = [1; 48];
const BATCH: usize = 16;

pub(crate) fn measure(numbers: &mut Vec<Number>) {
    for (size, target) in [(16, Some(20.0)), (256, Some(24.0)), (4096, Some(100.0)), (65536, None)]
    {
        let limit = limits::payload_copy(size, true);
        numbers.push(
            Number::new(format!("ring_{size}_ns"), "ns", copied(size, 1), limit).target(target),
        );
    }
    for (size, target) in [(16, 12.0), (256, 18.0), (4096, 90.0)] {
        let limit = limits::payload_copy(size, true);
        let value = copied(size, BATCH) / BATCH as f64;
        numbers.push(
            Number::new(format!("ring_{size}_batch16_ns"), "ns", value, limit).target(target),
        );
    }
    let limit = limits::payload_copy(4096, false);
    numbers.push(Number::new("ring_4096_nocopy_ns", "ns", looked_at(4096), limit).target(45.0));
    for pages in [1, 16, 64] {
        let mut direct = GpaDirect::new(pages);
        let limit = limits::payload_copy(direct.header.len() + REQUEST.len(), true);
        let value = best_of(|| direct.pass());
        numbers.push(Number::new(format!("ring_gpa_direct_{pages}_ns"), "ns", value, limit));
    }
    numbers.push(allocations());
}

/// Both ends of a ring.
pub(crate) struct Ends {
    memory: PlainMemory,
    pub(crate) outgoing: Outgoing,
    pub(crate) incoming: Incoming,
}

impl Ends {
    pub(crate) fn new(data_pages: usize) -> Ends {
        let memory = PlainMemory::new(data_pages + 1 + SHARED_PAGES as usize).unwrap();
        // One mapping for both: with a second mapping, caches that use virtual addresses would make
        // one of them look slow.
        let ring = memory.ring_at(0, data_pages + 1, Mode::Mirrored).unwrap();
        ring.reset();
        let incoming = Incoming::new(ring.clone()).unwrap();
        Ends { memory, outgoing: Outgoing::new(ring).unwrap(), incoming }
    }

    #[inline]
    pub(crate) fn write(&mut self, payload: &[u8], count: usize) {
        let mut batch = self.outgoing.batch().unwrap();
        for id in 0..count {
            batch.write(&OutPacket::in_band(id as u64, &[payload])).unwrap();
        }
        black_box(batch.commit());
    }

    #[inline]
    pub(crate) fn read(&mut self, to: &mut [u8]) {
        let mut batch = self.incoming.batch().unwrap();
        while let Some(packet) = batch.next().unwrap() {
            black_box(packet.transaction_id());
            black_box(packet.read_payload(to));
        }
        black_box(batch.commit());
    }

    /// Reads the payload in the ring, without a copy.
    #[inline]
    fn look(&mut self) {
        let mut batch = self.incoming.batch().unwrap();
        while let Some(packet) = batch.next().unwrap() {
            black_box(packet.transaction_id());
            black_box(packet.payload_slice());
        }
        black_box(batch.commit());
    }
}

/// Returns the nanoseconds of a packet, in commits of `batch` packets that are written and copied
/// out.
pub(crate) fn copied(size: usize, batch: usize) -> f64 {
    let small = (size + 24) * batch < DATA_PAGES * 4096;
    let mut ends = Ends::new(if small { DATA_PAGES } else { MANY_DATA_PAGES });
    let (payload, mut to) = (vec![1_u8; size], vec![0_u8; size]);
    best_of(|| {
        ends.write(black_box(&payload), batch);
        ends.read(&mut to);
    })
}

fn looked_at(size: usize) -> f64 {
    let mut ends = Ends::new(DATA_PAGES);
    let payload = vec![1_u8; size];
    best_of(|| {
        ends.write(black_box(&payload), 1);
        ends.look();
    })
}

/// Requests with page lists, which are parsed into one reused buffer.
struct GpaDirect {
    ends: Ends,
    header: Vec<u8>,
    buffer: GuestBuffer,
}

impl GpaDirect {
    fn new(pages: u32) -> GpaDirect {
        let ends = Ends::new(DATA_PAGES);
        // Every second page behind the ring is used, so no two merge.
        let first = DATA_PAGES as u64 + 1;
        let list: Vec<u64> =
            (0..u64::from(pages)).map(|page| first + page * 2 % SHARED_PAGES).collect();
        let mut header = Vec::new();
        gpa_direct_header(
            &[GpaRange { byte_count: pages * 4096, byte_offset: 0, pages: &list }],
            &mut header,
        );
        let buffer = GuestBuffer::new(ends.memory.ram().clone());
        GpaDirect { ends, header, buffer }
    }

    #[inline]
    fn pass(&mut self) {
        let mut batch = self.ends.outgoing.batch().unwrap();
        let pieces: [&[u8]; 1] = [&REQUEST];
        let packet = OutPacket::request(1, &pieces)
            .with_header(PacketKind::GpaDirect, black_box(&self.header));
        batch.write(&packet).unwrap();
        black_box(batch.commit());
        let mut batch = self.ends.incoming.batch().unwrap();
        let packet = batch.next().unwrap().unwrap();
        packet.gpa_direct(&mut self.buffer).unwrap();
        black_box(packet.read::<[u8; REQUEST.len()]>());
        black_box(batch.commit());
        black_box(self.buffer.len());
    }
}

/// Counts the allocations of every kind of packet above, once the buffers have their final sizes.
fn allocations() -> Number {
    const ROUNDS: usize = 1000;
    let (mut ends, mut direct) = (Ends::new(DATA_PAGES), GpaDirect::new(64));
    let (payload, mut to) = (vec![1_u8; 256], vec![0_u8; 256]);
    direct.pass();
    let counted = counted(|| {
        for _ in 0..ROUNDS {
            ends.write(&payload, BATCH);
            ends.read(&mut to);
            ends.write(&payload, 1);
            ends.look();
            direct.pass();
        }
    });
    let packets = ROUNDS * (BATCH + 2);
    let value = counted.allocations as f64 / packets as f64;
    Number::new("ring_allocs_per_packet", "allocs", value, 0.0).target(0.0)
}
