//! What a guest can make the host allocate: in proportion to the bytes it sent, never to the bytes it declared.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use vmbus_protocol::limits::MAX_GPADLS_IN_PROGRESS;

use crate::common::{Guest, LOW_PAGES, Range, post};

/// Counts the live bytes of each test's own thread.
struct Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that ends frees after its counter is gone; nobody asks then.
    let _ = LIVE.try_with(|live| live.set(live.get().wrapping_add(bytes)));
}

// SAFETY: every call goes to the system's allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller's contract is this method's own.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn live() -> isize {
    LIVE.with(Cell::get)
}

/// Bytes that one of many unfinished GPADLs may cost beyond the list it has received.
const EACH: isize = 512;

/// The same for the first one: maps allocate places for several at once.
const FIRST: isize = 4096;

// "Thousands of unfinished headers eating memory."
#[test]
fn test_memory_of_unfinished_headers_is_a_small_constant_each() {
    // Four channels: one may have a quarter of them.
    let mut guest = Guest::v5_3(4);
    let before = live();
    for id in 0..10_000 {
        guest.post(&post::header(1 + id % 4, id, 1, 65_528, &[])).unwrap();
        guest.replies.clear();
        (guest.targets, guest.sizes) = Default::default();
    }
    let cost = live() - before;
    assert_eq!(guest.core.gpadls_arriving(), MAX_GPADLS_IN_PROGRESS);
    let bound = EACH * isize::try_from(MAX_GPADLS_IN_PROGRESS).unwrap();
    assert!(cost < bound, "{cost} bytes for {MAX_GPADLS_IN_PROGRESS} headers");
}

#[test]
fn test_memory_of_unfinished_lists_follows_the_bytes_received() {
    let mut guest = Guest::v5_3(1);
    let scattered = (0..8190).map(|page| (page * 7919) % LOW_PAGES).collect();
    let messages = post::gpadl(1, 1, &[Range { count: 8190 * 4096, offset: 0, pages: scattered }]);
    guest.replies.reserve(16);
    let before = live();
    let mut received = 0;
    for message in &messages[..messages.len() - 1] {
        guest.post(message).unwrap();
        received += isize::try_from(message.len()).unwrap();
        let cost = live() - before;
        // A growing list may hold twice what it needs.
        assert!(cost < FIRST + 2 * received, "{cost} bytes after {received} received");
    }
    guest.post(messages.last().unwrap()).unwrap();
    let kept = live() - before;
    assert!(kept < FIRST + 8 * 8190, "{kept} bytes kept for 8190 scattered pages");
}

#[test]
fn test_memory_comes_back_with_a_reset() {
    let mut guest = Guest::v5_3(1);
    let round = |guest: &mut Guest| {
        for id in 0..60 {
            guest.post(&post::header(1, id, 1, 65_528, &[])).unwrap();
            guest.create(1, 1000 + id, 300);
        }
        guest.core.reset();
        guest.settle();
        guest.post(&post::contact(vmbus_protocol::Version::V5_3.word(), 0)).unwrap();
        guest.post(&post::request_offers()).unwrap();
        (guest.replies, guest.targets, guest.sizes) = Default::default();
    };
    round(&mut guest);
    let before = live();
    for _ in 0..20 {
        round(&mut guest);
    }
    let grown = live() - before;
    assert!(grown < 4096, "{grown} bytes more after 20 rounds");
}
