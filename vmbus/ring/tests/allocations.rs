//! The path of a packet makes no allocation.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::ring_in;
use vmbus_gpadl::GuestBuffer;
use vmbus_ring::{GpaRange, Mode, OutPacket, PacketKind, PlainMemory, gpa_direct_header};

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's guarantees are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's guarantees are passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

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
        let before = COUNT.with(Cell::get);
        assert_ne!(before, 0, "the counter counts");
        for _ in 0..1000 {
            round(&mut buffer);
        }
        assert_eq!(COUNT.with(Cell::get) - before, 0, "4,000 packets, {mode:?}");
    }
}
