//! The path of a packet makes no allocation.

mod common;

use common::ring_in;
use vmbus_gpadl::GuestBuffer;
use vmbus_heap::{CountingAllocator, allocations};
use vmbus_ring::{GpaRange, Mode, OutPacket, PacketKind, PlainMemory, gpa_direct_header};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[test]
fn test_ring_packets_of_all_kinds_allocate_nothing() {
    for mode in [Mode::Mirrored, Mode::Paged] {
        let mut ring = ring_in(PlainMemory::new(128).unwrap(), vec![0, 5, 9, 1, 2], mode);
        let pages: Vec<u64> = (0..64).map(|page| page * 2 % 128).collect();
        let mut header = Vec::new();
        gpa_direct_header(
            &[GpaRange { byte_count: 64 * 4096, byte_offset: 0, pages: &pages }],
            &mut header,
        );
        let mut buffer = GuestBuffer::new(ring.memory.ram().clone());
        let mut to = [0; 4096];
        let mut round = |buffer: &mut GuestBuffer| {
            let mut batch = ring.outgoing.batch().unwrap();
            for payload in [&to[..16], &to[..256], &to[..4096]] {
                batch.write(&OutPacket::in_band(1, &[payload])).unwrap();
            }
            batch
                .write(
                    &OutPacket::request(2, &[&to[..48]])
                        .with_header(PacketKind::GpaDirect, &header),
                )
                .unwrap();
            let _ = batch.commit();
            let mut batch = ring.incoming.batch().unwrap();
            while let Some(packet) = batch.next().unwrap() {
                packet.read_payload(&mut to);
                if packet.kind() == PacketKind::GpaDirect {
                    packet.gpa_direct(buffer).unwrap();
                }
            }
            let _ = batch.commit();
            let _ = ring.incoming.unmask();
        };
        // The first round allocates the buffer.
        round(&mut buffer);
        let before = allocations();
        assert_ne!(before, 0, "the counter counts");
        for _ in 0..1000 {
            round(&mut buffer);
        }
        assert_eq!(allocations() - before, 0, "4,000 packets, {mode:?}");
    }
}
