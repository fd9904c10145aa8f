//! The memory that a guest can make the host allocate: in proportion to the bytes it sent, never to
//! the bytes it declared.

use vmbus_heap::{CountingAllocator, live_bytes};
use vmbus_protocol::limits::{MAX_GPADL_RANGES, MAX_GPADLS_IN_PROGRESS};

use crate::common::{Guest, LOW_PAGES, Range, Reply, post};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Bytes that one of many unfinished GPADLs may cost beyond the list it has received.
const EACH: isize = 512;

/// Most bytes that an unfinished list may cost beyond the bytes received (docs/limits.md).
const BEYOND: isize = 3072;

/// Most bytes that a complete list may cost beyond its lists; maps allocate space for several
/// entries.
const COMPLETE: isize = 4096;

// "Thousands of unfinished headers eating memory."
#[test]
fn test_memory_of_unfinished_headers_is_a_small_constant_each() {
    // Four channels: one may have a quarter of them.
    let mut guest = Guest::v5_3(4);
    let before = live_bytes();
    for id in 0..10_000 {
        guest.post(&post::header(1 + id % 4, id, 1, 65_528, &[])).unwrap();
        guest.replies.clear();
        (guest.targets, guest.sizes) = Default::default();
    }
    let cost = live_bytes() - before;
    assert_eq!(guest.core.gpadls_arriving(), MAX_GPADLS_IN_PROGRESS);
    let bound = EACH * isize::try_from(MAX_GPADLS_IN_PROGRESS).unwrap();
    assert!(cost < bound, "{cost} bytes for {MAX_GPADLS_IN_PROGRESS} headers");
}

/// Posts `messages` and compares the heap with the received bytes, at every message's end. Returns
/// the bytes that the complete list keeps.
fn cost_never_beyond_received(messages: &[Vec<u8>]) -> isize {
    let mut guest = Guest::v5_3(1);
    guest.replies.reserve(16);
    // Another one, of which nothing came yet: the map has space for several.
    guest.post(&post::header(1, 2, 1, 16, &[])).unwrap();
    let before = live_bytes();
    let mut received = 0;
    for message in &messages[..messages.len() - 1] {
        guest.post(message).unwrap();
        received += isize::try_from(message.len()).unwrap();
        let cost = live_bytes() - before;
        assert!(cost <= received + BEYOND, "{cost} bytes after {received} received");
    }
    guest.post(messages.last().unwrap()).unwrap();
    assert_eq!(guest.take(), [Reply::created(1, 1)]);
    live_bytes() - before
}

/// Pages of which no two are neighbours.
fn scattered(count: u64) -> Vec<u64> {
    (0..count).map(|page| (page * 7919) % LOW_PAGES).collect()
}

#[test]
fn test_memory_of_an_unfinished_list_is_never_beyond_the_bytes_received() {
    let list =
        post::gpadl(1, 1, &[Range { count: 8190 * 4096, offset: 0, pages: scattered(8190) }]);
    let kept = cost_never_beyond_received(&list);
    assert!(kept < COMPLETE + 8 * 8190, "{kept} bytes kept for 8190 scattered pages");

    let half = (0..8190).map(|page| (page / 2 * 7918) % LOW_PAGES + page % 2).collect();
    cost_never_beyond_received(&post::gpadl(
        1,
        1,
        &[Range { count: 8190 * 4096, offset: 0, pages: half }],
    ));
    let contiguous = (0..LOW_PAGES.min(8190)).collect::<Vec<_>>();
    let count = u32::try_from(contiguous.len() * 4096).unwrap();
    cost_never_beyond_received(&post::gpadl(
        1,
        1,
        &[Range { count, offset: 0, pages: contiguous }],
    ));
}

/// Every page a range of its own: the list in which a word on the wire says least.
#[test]
fn test_memory_of_an_unfinished_list_of_many_ranges_is_never_beyond_the_bytes_received() {
    let most = MAX_GPADL_RANGES as u64;
    let ranges: Vec<Range> = scattered(most)
        .into_iter()
        .map(|page| Range { count: 4096, offset: 0, pages: vec![page] })
        .collect();
    let kept = cost_never_beyond_received(&post::gpadl(1, 1, &ranges));
    assert!(
        kept < COMPLETE + 24 * isize::try_from(most).unwrap(),
        "{kept} bytes kept for {most} ranges"
    );
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
    let before = live_bytes();
    for _ in 0..20 {
        round(&mut guest);
    }
    let grown = live_bytes() - before;
    assert!(grown < 4096, "{grown} bytes more after 20 rounds");
}
