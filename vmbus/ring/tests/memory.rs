//! The pages that can form a ring, and the access to them.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use common::{drain, ring_of, write_one};
use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmbus_gpadl::{
    Gpadl, GpadlKey, GpadlView, GuestBuffer, GuestRam, RangeAssembler, ReleaseSink, Teardown,
};
use vmbus_ring::limits::{MAX_MIRROR_RUNS, MAX_RING_PAGES, MIN_RING_PAGES};
use vmbus_ring::{Incoming, MapError, Mode, PlainMemory, RingMemory};

#[derive(Default)]
struct Released(AtomicU32);

impl ReleaseSink for Released {
    fn gpadl_released(&self, _: GpadlKey) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Returns a GPADL of ranges {byte count, byte offset, pages}.
fn gpadl(ram: &GuestRam, ranges: &[(u32, u32, &[u64])]) -> (Gpadl, Arc<Released>) {
    let mut bytes = Vec::new();
    for (count, offset, pages) in ranges {
        bytes.extend(count.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        bytes.extend(pages.iter().flat_map(|page| page.to_le_bytes()));
    }
    let buffer =
        RangeAssembler::assemble(GuestBuffer::new(ram.clone()), ranges.len() as u32, &bytes)
            .unwrap();
    let released = Arc::new(Released::default());
    (
        Gpadl::new(GpadlKey { relid: 1, id: 1, serial: 1 }, buffer, Arc::clone(&released) as _),
        released,
    )
}

fn view(ram: &GuestRam, ranges: &[(u32, u32, &[u64])]) -> GpadlView {
    gpadl(ram, ranges).0.map().unwrap()
}

#[test]
fn test_ring_map_keeps_the_view_until_it_is_dropped() {
    let memory = PlainMemory::new(8).unwrap();
    let (gpadl, released) = gpadl(memory.ram(), &[(8 * 4096, 0, &[0, 1, 2, 3, 4, 5, 6, 7])]);
    let view = gpadl.map().unwrap();
    let incoming = Incoming::new(RingMemory::map(view.clone(), 0, 4).unwrap()).unwrap();
    let other = RingMemory::map(view, 4, 4).unwrap();
    assert_eq!((other.mode(), other.data_size()), (Mode::Mirrored, 3 * 4096));
    assert_eq!(gpadl.teardown(), Teardown::Waits);
    drop(other);
    assert_eq!(released.0.load(Ordering::Relaxed), 0);
    let watch = incoming.watch();
    drop(incoming);
    assert_eq!(released.0.load(Ordering::Relaxed), 1, "a watch does not hold a teardown up");
    assert!(watch.snapshot().is_none());
}

#[test]
fn test_ring_map_over_a_chain_of_ranges_is_one_ring() {
    let memory = PlainMemory::new(16).unwrap();
    let ranges: [(u32, u32, &[u64]); 3] =
        [(4096, 0, &[9]), (8192, 0, &[3, 4]), (12288, 0, &[5, 1, 9])];
    let view = view(memory.ram(), &ranges);
    for mode in common::BOTH_MODES {
        let ring = RingMemory::map_as(view.clone(), 0, 5, mode).unwrap();
        assert_eq!((ring.mode(), ring.data_size()), (mode, 4 * 4096));
    }
    // Page 9 is used twice, as control page and as data. The guest may list it so, and it is
    // harmless.
    let ring = RingMemory::map(view, 0, 6).unwrap();
    ring.reset();
    assert!(Incoming::new(ring).is_ok());
}

#[test]
fn test_ring_map_of_partial_pages_is_refused() {
    let memory = PlainMemory::new(16).unwrap();
    let offset = view(memory.ram(), &[(3 * 4096, 8, &[0, 1, 2, 3])]);
    let partial: [(u32, u32, &[u64]); 2] = [(4096 + 8, 0, &[0, 1]), (2 * 4096 - 8, 0, &[2, 3])];
    let partial = view(memory.ram(), &partial);
    for mode in common::BOTH_MODES {
        assert!(matches!(RingMemory::map_as(offset.clone(), 0, 3, mode), Err(MapError::NotPages)));
        assert!(matches!(RingMemory::map_as(partial.clone(), 0, 3, mode), Err(MapError::NotPages)));
    }
}

#[test]
fn test_ring_map_beyond_the_buffer_or_of_no_data_is_refused() {
    let memory = PlainMemory::new(4).unwrap();
    let view = view(memory.ram(), &[(4 * 4096, 0, &[0, 1, 2, 3])]);
    for (first, pages) in [(0, 5), (3, 2), (4, 2), (usize::MAX, 2), (usize::MAX / 4096, 2)] {
        assert!(
            matches!(
                RingMemory::map(view.clone(), first, pages),
                Err(MapError::BeyondBuffer { .. })
            ),
            "{first} {pages}"
        );
    }
    for pages in [0, 1, MAX_RING_PAGES + 1, usize::MAX] {
        assert!(
            matches!(RingMemory::map(view.clone(), 0, pages), Err(MapError::Size { .. })),
            "{pages}"
        );
    }
}

#[test]
fn test_ring_of_the_fewest_and_of_the_most_pages_works() {
    // A page may be listed twice, so the largest ring needs few pages of RAM.
    for pages in [MIN_RING_PAGES, MAX_RING_PAGES] {
        let list: Vec<u64> =
            (0..pages as u64).map(|page| if page == 0 { 0 } else { 1 + page % 60 }).collect();
        let mut ring = ring_of(list, Mode::Paged);
        assert_eq!(ring.data_size() as usize, (pages - 1) * 4096);
        write_one(&mut ring.outgoing, 1, &[7; 4000]).unwrap();
        assert_eq!(drain(&mut ring.incoming).unwrap().0[0].payload, [7; 4000]);
    }
}

#[test]
fn test_ring_of_the_most_runs_is_mirrored_and_one_more_is_paged() {
    // Every second page is used, so each is a run of its own.
    let pages = |data: usize| (0..=data as u64).map(|page| page * 2).collect::<Vec<_>>();
    for (data, mode) in [(MAX_MIRROR_RUNS, Mode::Mirrored), (MAX_MIRROR_RUNS + 1, Mode::Paged)] {
        let mut ring = ring_of(pages(data), Mode::Mirrored);
        assert_eq!(ring.incoming.memory().mode(), mode);
        let payload: Vec<u8> = (0..50_000).map(|n| (n % 251) as u8).collect();
        for _ in 0..20 {
            write_one(&mut ring.outgoing, 1, &payload).unwrap();
            assert_eq!(drain(&mut ring.incoming).unwrap().0[0].payload, payload);
        }
    }
}

#[test]
fn test_ring_in_anonymous_memory_is_paged() {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 4 * 4096)]).unwrap();
    let ram = GuestRam::new(memory).unwrap();
    let ring = RingMemory::map(view(&ram, &[(4 * 4096, 0, &[0, 1, 2, 3])]), 0, 4).unwrap();
    assert_eq!(ring.mode(), Mode::Paged);
}

#[test]
fn test_ring_mirror_shows_the_same_bytes_twice() {
    let mut ring = ring_of(vec![0, 5, 3, 4], Mode::Mirrored);
    ring.advance_to(3 * 4096 - 32);
    let payload: Vec<u8> = (0..4000).map(|n| n as u8).collect();
    write_one(&mut ring.outgoing, 1, &payload).unwrap();
    let mut batch = ring.incoming.batch().unwrap();
    let packet = batch.next().unwrap().unwrap();
    let slice =
        packet.payload_slice().expect("a mirrored payload is one piece even across the end");
    let mut seen = vec![0; slice.len()];
    slice.copy_to(&mut seen);
    assert_eq!(seen, payload);
}

#[test]
fn test_ring_paged_payload_across_pages_is_no_slice_but_pieces() {
    let mut ring = ring_of(vec![0, 5, 3, 4], Mode::Paged);
    write_one(&mut ring.outgoing, 1, &[1; 9000]).unwrap();
    let mut batch = ring.incoming.batch().unwrap();
    let packet = batch.next().unwrap().unwrap();
    assert!(packet.payload_slice().is_none());
    let lens: Vec<usize> = packet.payload_slices().map(|slice| slice.len()).collect();
    assert_eq!(lens, [4080, 4096, 824]);
}
