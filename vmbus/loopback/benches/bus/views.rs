//! The uses of an accepted GPADL of 4,096 scattered pages: a ring, iovecs, slices.

use std::hint::black_box;

use vmbus_gpadl::GpadlView;
use vmbus_ring::{Incoming, Mode, PlainMemory, RingMemory};

use crate::clock::{best_of, best_undone};
use crate::limits;
use crate::number::Number;
use crate::server::{Order, RAM_PAGES, Server, create_messages, pages};

const PAGES: usize = 4096;
/// Bytes of a random access.
const ACCESS: usize = 64;
/// Number of different offsets of random accesses: more than a branch predictor can learn.
const PLACES: usize = 1 << 14;

pub(crate) fn measure(numbers: &mut Vec<Number>) {
    let list = pages(PAGES as u64, Order::Scattered, 1);
    // The memory is backed by a file, like a VM's RAM, so that mapping a ring also tries a mirror.
    let memory = PlainMemory::new(usize::try_from(RAM_PAGES).unwrap()).unwrap();
    let mut server = Server::new(memory.ram().clone());
    server.create(&create_messages(&list));

    let table = limits::address_table(&list) / PAGES as f64;
    let value = ring_map(&server) / PAGES as f64;
    numbers
        .push(Number::new("gpadl_ring_map_4096_ns_per_page", "ns/page", value, table).target(2.0));
    let view = server.map();
    let value = iovecs(&view) / PAGES as f64;
    numbers.push(Number::new("gpadl_iovec_4096_ns_per_page", "ns/page", value, table).target(2.0));
    let offsets = offsets();
    let limit = limits::table_look_up(&list, &offsets);
    numbers.push(
        Number::new("gpadl_slice_random_ns", "ns", slices(&view, &offsets), limit).target(30.0),
    );
}

/// Measures the mapping of a ring, from the handle to a ring that can be read.
fn ring_map(server: &Server) -> f64 {
    let mut ring = None;
    best_undone(
        &mut ring,
        |ring| {
            let memory = RingMemory::map(server.map(), 0, PAGES).unwrap();
            assert_eq!(memory.mode(), Mode::Paged);
            *ring = Some(Incoming::new(memory).unwrap());
        },
        |ring| *ring = None,
    )
}

fn iovecs(view: &GpadlView) -> f64 {
    let mut list = Vec::with_capacity(PAGES);
    best_of(|| {
        list.clear();
        view.iovecs(0, view.len(), &mut list).unwrap();
        black_box(&mut list);
    })
}

fn slices(view: &GpadlView, offsets: &[usize]) -> f64 {
    let mut next = offsets.iter().cycle();
    best_of(|| {
        let offset = next.next().copied().unwrap_or_default();
        for slice in view.slices(offset, ACCESS).unwrap() {
            black_box(slice);
        }
    })
}

/// Returns random offsets in the buffer; one access in 65 crosses pages.
fn offsets() -> Vec<usize> {
    let mut state = 1_u64;
    let step = |_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % (PAGES * 4096 - ACCESS)
    };
    (0..PLACES).map(step).collect()
}
