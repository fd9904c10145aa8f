//! The conformance checklist of kmcl.md section 6, items 1 to 11, 19 and 24: GPADLs, message by
//! message, with the real host.

mod common;

use common::raw::{FromHost, RawChannel, RawGuest, range_words};
use common::{CLASS, client, offer};
use vmbus_client::GpadlFlags;
use vmbus_gpadl::MapError;
use vmbus_host::{ReadOnly, ReadWrite};
use vmbus_loopback::{Layout, LoopbackVm, Mode};
use vmbus_protocol::message::MessageType;

use FromHost::{Created, Torndown};

const ID: u32 = 0xE1E10;
const RING: u32 = 0x77;

fn is_failure(heard: &[FromHost], relid: u32, id: u32) -> bool {
    matches!(heard, [Created(of, gpadl, status)] if (*of, *gpadl) == (relid, id) && *status != 0)
}

/// Returns a guest with an open channel, on which it has described page 9.
fn described() -> (RawGuest, RawChannel) {
    let guest = RawGuest::new(1);
    let channel = guest.open(0, RING);
    guest.describe(channel.relid, ID, &[(0, 4096, &[9])]);
    (guest, channel)
}

#[test]
fn test_kmcl_01_header_that_fits_one_message_gets_exactly_one_created_with_its_ids() {
    let guest = RawGuest::new(1);
    let relid = guest.relid(0);
    guest.describe(relid, ID, &[(0, 4096, &[5])]);
    assert_eq!(guest.heard(), [Created(relid, ID, 0)]);
    assert_eq!(guest.heard(), []);
}

#[test]
fn test_kmcl_02_created_comes_after_the_last_body_and_interleaved_bodies_complete_both() {
    let guest = RawGuest::new(2);
    let pages: Vec<u64> = (100..200).collect();
    let words = range_words(&[(0, 100 * 4096, &pages)]);
    let buflen = (words.len() * 8) as u16;
    guest.header(guest.relid(0), ID, buflen, 1, &words[..27]);
    guest.header(guest.relid(1), ID + 1, buflen, 1, &words[..27]);
    for part in words[27..83].chunks(28) {
        guest.body(ID, part);
        guest.body(ID + 1, part);
    }
    assert_eq!(guest.heard(), [], "nothing before the last body");
    guest.body(ID + 1, &words[83..]);
    assert_eq!(guest.heard(), [Created(guest.relid(1), ID + 1, 0)]);
    guest.body(ID, &words[83..]);
    assert_eq!(guest.heard(), [Created(guest.relid(0), ID, 0)]);
    // A further body belongs to no list.
    guest.body(ID, &words[83..]);
    assert_eq!(guest.heard(), []);
}

#[test]
fn test_kmcl_03_page_counts_at_message_boundaries_are_accepted() {
    let guest = RawGuest::new(1);
    let relid = guest.relid(0);
    for (id, count) in (ID..).zip([1, 25, 26, 27, 53, 54, 55, 82, 83, 8189, 8190_u64]) {
        let pages: Vec<u64> = (1..=count).collect();
        guest.describe(relid, id, &[(0, (count * 4096) as u32, &pages)]);
        assert_eq!(guest.heard(), [Created(relid, id, 0)], "{count} pages");
        guest.tear_down(relid, id);
        assert_eq!(guest.heard(), [Torndown(id)], "{count} pages");
    }
}

#[test]
fn test_kmcl_04_two_unaligned_ranges_read_back_as_their_concatenation() {
    let guest = RawGuest::new(1);
    let channel = guest.open(0, RING);
    let pages = guest.vm.pages().allocate(5, Layout::Scattered).unwrap();
    for (number, &page) in pages.iter().enumerate() {
        let bytes: Vec<u8> = (0..4096_usize).map(|at| (at * 7 + number * 31) as u8).collect();
        guest.write(page, 0, &bytes);
    }
    guest.describe(channel.relid, ID, &[(4000, 200, &pages[..2]), (3, 9000, &pages[2..])]);
    assert_eq!(guest.heard(), [Created(channel.relid, ID, 0)]);
    let view = channel.host.map_gpadl(ID, ReadWrite).unwrap();
    let expected = [
        guest.read(pages[0], 4000, 96),
        guest.read(pages[1], 0, 104),
        guest.read(pages[2], 3, 4093),
        guest.read(pages[3], 0, 4096),
        guest.read(pages[4], 0, 811),
    ]
    .concat();
    let mut seen = vec![0; view.len()];
    view.read(0, &mut seen).unwrap();
    assert_eq!(seen, expected);
    view.write(195, b"across the ranges").unwrap();
    assert_eq!(guest.read(pages[1], 99, 5), b"acros");
    assert_eq!(guest.read(pages[2], 3, 12), b"s the ranges");
}

#[test]
fn test_kmcl_05_server_uses_the_map_before_any_ring_traffic() {
    let (guest, channel) = described();
    // CREATED is queued, and the guest has not read it yet.
    let view = channel.host.map_gpadl(ID, ReadWrite).unwrap();
    view.write(0, b"early").unwrap();
    assert_eq!(guest.read(9, 0, 5), b"early");
    assert_eq!(guest.heard(), [Created(channel.relid, ID, 0)]);
    assert_eq!(channel.rings.incoming.indices().write_index, 0);
}

#[test]
fn test_kmcl_06_bad_ranges_fail_and_the_id_is_free_immediately() {
    let guest = RawGuest::new(1);
    let relid = guest.relid(0);
    let head = |offset: u64, count: u64| offset << 32 | count;
    let bad: &[(&str, u16, u16, &[u64])] = &[
        ("byte count 0", 16, 1, &[head(0, 0), 5]),
        ("byte offset 0x1000", 16, 1, &[head(0x1000, 1), 5]),
        ("overflow", 16, 1, &[head(0xFFF, 0xFFFF_FFFF), 5]),
        ("short page list", 16, 1, &[head(0, 4097), 5]),
        ("no range", 16, 0, &[head(0, 4096), 5]),
        ("buflen below rangecount", 8, 2, &[head(0, 4096)]),
        ("buflen no multiple of 8", 15, 1, &[head(0, 4096), 5]),
        ("buflen 0", 0, 1, &[]),
        ("second range missing", 16, 2, &[head(0, 4096), 5]),
    ];
    for &(why, buflen, ranges, words) in bad {
        guest.header(relid, ID, buflen, ranges, words);
        assert!(is_failure(&guest.heard(), relid, ID), "{why}");
        assert!(
            guest.vm.inspect().gpadls.is_empty() && guest.vm.inspect().gpadls_arriving == 0,
            "{why}"
        );
        guest.describe(relid, ID, &[(0, 4096, &[5])]);
        assert_eq!(guest.heard(), [Created(relid, ID, 0)], "{why}: id free");
        guest.tear_down(relid, ID);
        assert_eq!(guest.heard(), [Torndown(ID)]);
    }
}

#[test]
fn test_kmcl_07_duplicate_id_fails_and_the_original_stays_mapped_and_usable() {
    let (guest, channel) = described();
    let view = channel.host.map_gpadl(ID, ReadWrite).unwrap();
    guest.heard();
    guest.describe(channel.relid, ID, &[(0, 4096, &[10])]);
    assert!(is_failure(&guest.heard(), channel.relid, ID));
    view.write(0, b"still mine").unwrap();
    assert_eq!(guest.read(9, 0, 10), b"still mine");
    drop(view);
    assert_eq!(
        channel.host.map_gpadl(ID, ReadWrite).unwrap().guest_pages().collect::<Vec<_>>(),
        [9]
    );
    // While the list is being received, its id is in use on every channel.
    let words = range_words(&[(0, 27 * 4096, &(1..28).collect::<Vec<_>>())]);
    guest.header(channel.relid, ID + 1, 224, 1, &words[..27]);
    guest.header(channel.relid, ID + 1, 224, 1, &words[..27]);
    assert!(is_failure(&guest.heard(), channel.relid, ID + 1));
    guest.body(ID + 1, &words[27..]);
    assert_eq!(guest.heard(), [Created(channel.relid, ID + 1, 0)]);
}

#[test]
fn test_kmcl_08_pages_outside_ram_fail_cleanly() {
    let guest = RawGuest::new(1);
    let relid = guest.relid(0);
    let ram_pages = guest.vm.ram().pages();
    for page in [ram_pages, ram_pages + 1, 0xF_E000, 1 << 40, u64::MAX >> 12, u64::MAX] {
        guest.describe(relid, ID, &[(0, 3 * 4096, &[5, page, 6])]);
        assert!(is_failure(&guest.heard(), relid, ID), "page {page:#x}");
    }
    guest.describe(relid, ID, &[(0, 4096, &[ram_pages - 1])]);
    assert_eq!(guest.heard(), [Created(relid, ID, 0)]);
}

#[test]
fn test_kmcl_09_torndown_waits_for_the_mapping_and_memory_is_untouched_after_it() {
    let (guest, channel) = described();
    let view = channel.host.map_gpadl(ID, ReadWrite).unwrap();
    let clone = view.clone();
    guest.heard();
    guest.tear_down(channel.relid, ID);
    assert_eq!(guest.heard(), [], "mapped");
    assert!(view.is_tearing_down());
    view.write(0, b"last words").unwrap();
    drop(view);
    assert_eq!(guest.heard(), [], "a clone is left");
    assert_eq!(channel.host.map_gpadl(ID, ReadWrite).unwrap_err(), MapError::Going(ID));
    drop(clone);
    assert_eq!(guest.heard(), [Torndown(ID)]);
    assert_eq!(channel.host.map_gpadl(ID, ReadWrite).unwrap_err(), MapError::Unknown(ID));
    assert_eq!(guest.read(9, 0, 10), b"last words");
}

#[test]
fn test_kmcl_10_bogus_teardowns_get_no_torndown() {
    let guest = RawGuest::new(2);
    let channel = guest.open(0, RING);
    let other = guest.relid(1);
    guest.describe(channel.relid, ID, &[(0, 4096, &[9])]);
    guest.heard();
    guest.tear_down(channel.relid, ID + 1);
    guest.tear_down(other, ID);
    guest.tear_down(2047, ID);
    assert_eq!(guest.heard(), [], "unknown id, another channel's id, unknown channel");
    let view = channel.host.map_gpadl(ID, ReadWrite).unwrap();
    guest.tear_down(channel.relid, ID);
    guest.tear_down(channel.relid, ID);
    assert_eq!(guest.heard(), []);
    drop(view);
    assert_eq!(guest.heard(), [Torndown(ID)], "two requests, one answer");
    guest.tear_down(channel.relid, ID);
    assert_eq!(guest.heard(), []);
}

#[test]
fn test_kmcl_11_teardown_after_close_works_and_a_ring_is_never_torn_from_an_open_channel() {
    let (guest, channel) = described();
    guest.heard();
    let relid = channel.relid;
    guest.tear_down(relid, RING);
    assert_eq!(guest.heard(), [], "the channel still uses its rings");
    guest.close(relid);
    assert_eq!(guest.heard(), [], "and the device does");
    assert!(channel.host.is_closing());
    drop(channel.host);
    assert_eq!(guest.heard(), [Torndown(RING)]);
    guest.tear_down(relid, ID);
    assert_eq!(guest.heard(), [Torndown(ID)], "after the close");
}

#[test]
fn test_handle_of_an_ended_channel_maps_nothing_of_the_next_channel() {
    let guest = RawGuest::new(1);
    let first = guest.open(0, RING);
    let handle = first.host.handle();
    guest.describe(first.relid, ID, &[(0, 4096, &[9])]);
    drop(handle.map_gpadl(ID, ReadWrite).unwrap());
    drop(first.host);
    guest.close(first.relid);
    guest.tear_down(first.relid, RING);
    guest.heard();
    let next = guest.open(0, RING);
    assert_eq!(next.relid, first.relid);
    assert_eq!(handle.map_gpadl(ID, ReadWrite).unwrap_err(), MapError::Unknown(ID));
    assert_eq!(handle.mark_gpadl_read_only(ID).unwrap_err(), MapError::Unknown(ID));
    assert_eq!(next.host.map_gpadl(ID, ReadWrite).unwrap().guest_pages().next(), Some(9));
}

#[test]
fn test_kmcl_19_a_channel_cannot_map_the_gpadl_of_another() {
    let guest = RawGuest::new(2);
    let (first, second) = (guest.open(0, RING), guest.open(1, RING + 1));
    guest.describe(first.relid, ID, &[(0, 4096, &[9])]);
    assert_eq!(second.host.map_gpadl(ID, ReadWrite).unwrap_err(), MapError::Unknown(ID));
    // Both have the same id, and each sees its own GPADL.
    guest.describe(second.relid, ID, &[(0, 4096, &[10])]);
    assert_eq!(guest.heard(), [Created(first.relid, ID, 0), Created(second.relid, ID, 0)]);
    assert_eq!(first.host.map_gpadl(ID, ReadWrite).unwrap().guest_pages().next(), Some(9));
    assert_eq!(second.host.map_gpadl(ID, ReadWrite).unwrap().guest_pages().next(), Some(10));
}

#[test]
fn test_kmcl_24_second_map_before_unmap_fails() {
    let (_guest, channel) = described();
    let view = channel.host.map_gpadl(ID, ReadWrite).unwrap();
    assert_eq!(channel.host.map_gpadl(ID, ReadWrite).unwrap_err(), MapError::Mapped(ID));
    assert_eq!(
        channel.host.map_gpadl(RING, ReadWrite).unwrap_err(),
        MapError::Mapped(RING),
        "the rings are a mapping"
    );
    assert_eq!(
        channel.host.map_gpadl(ID, ReadOnly).unwrap_err(),
        MapError::Mapped(ID),
        "whatever for"
    );
    drop(view);
    let view = channel.host.map_gpadl(ID, ReadOnly).unwrap();
    let clone = view.clone();
    assert_eq!(channel.host.map_gpadl(ID, ReadWrite).unwrap_err(), MapError::Mapped(ID));
    drop(view);
    assert_eq!(
        channel.host.map_gpadl(ID, ReadOnly).unwrap_err(),
        MapError::Mapped(ID),
        "a clone is left"
    );
    drop(clone);
    drop(channel.host.map_gpadl(ID, ReadWrite).unwrap());
}

#[test]
fn test_kmcl_24_a_gpadl_marked_read_only_is_mapped_for_reading_alone() {
    let guest = RawGuest::new(1);
    let channel = guest.open(0, RING);
    assert_eq!(channel.host.mark_gpadl_read_only(ID), Err(MapError::Unknown(ID)));
    let pages = guest.vm.pages().allocate(2, Layout::Scattered).unwrap();
    guest.describe(channel.relid, ID, &[(4090, 12, &pages)]);
    let writable = channel.host.map_gpadl(ID, ReadWrite).unwrap();
    channel.host.mark_gpadl_read_only(ID).unwrap();
    writable.write(0, b"twelve bytes").unwrap();
    drop(writable);
    assert_eq!(channel.host.map_gpadl(ID, ReadWrite).unwrap_err(), MapError::ReadOnly(ID));
    let view = channel.host.map_gpadl(ID, ReadOnly).unwrap();
    let mut bytes = [0; 12];
    view.read(0, &mut bytes).unwrap();
    assert_eq!((&bytes, view.len(), view.pages()), (b"twelve bytes", 12, 2));
    let mut piecewise = Vec::new();
    for slice in view.slices(2, 8).unwrap() {
        let mut piece = vec![0; slice.len()];
        assert_eq!(slice.copy_to(&mut piece), piece.len());
        piecewise.extend(piece);
    }
    assert_eq!(piecewise, b"elve byt");
    let mut iovecs = Vec::new();
    view.source_iovecs(0, 12, &mut iovecs).unwrap();
    assert_eq!(iovecs.iter().map(|iovec| iovec.iov_len).sum::<usize>(), 12);
    assert!(view.read(1, &mut bytes).is_err() && view.slices(12, 1).is_err());
    // It is a mapping like any other: the guest gets its memory back after its end.
    guest.heard();
    guest.tear_down(channel.relid, ID);
    assert!(guest.heard().is_empty() && view.is_tearing_down());
    drop(view);
    assert_eq!(guest.heard(), [Torndown(ID)]);
    // The mark belongs to that GPADL, not to its id.
    guest.describe(channel.relid, ID, &[(0, 4096, &pages[..1])]);
    drop(channel.host.map_gpadl(ID, ReadWrite).unwrap());
}

#[test]
fn test_kmcl_24_a_gpadl_that_the_client_creates_read_only_is_so_at_the_server() {
    let vm = LoopbackVm::new(Mode::Stepped);
    let (_, opened) = vm.offer_manual(offer(0)).unwrap();
    let mut client = client(&vm);
    let id = client.open(CLASS, None, None).unwrap();
    let host = opened.take().unwrap();
    let mut channel = client.channel(id);
    let pages = vm.pages().allocate(1, Layout::Scattered).unwrap();
    let mut create = |flags| channel.create_gpadl_from_pfn_list(flags, &pages).unwrap().id();
    let (locked, open) = (create(GpadlFlags::READ_ONLY), create(GpadlFlags::empty()));
    assert_eq!(host.map_gpadl(locked, ReadWrite).unwrap_err(), MapError::ReadOnly(locked));
    assert!(host.map_gpadl(locked, ReadOnly).is_ok());
    assert!(host.map_gpadl(open, ReadWrite).is_ok() && host.map_gpadl(open, ReadOnly).is_ok());
    drop(host);
    client.channel(id).disable().unwrap();
}

#[test]
fn test_kmcl_18_unload_releases_everything_and_a_second_boot_reuses_all_ids() {
    let mut guest = RawGuest::new(2);
    for _ in 0..3 {
        let (first, second) = (guest.open(0, RING), guest.open(1, RING + 1));
        let relids = (first.relid, second.relid);
        guest.describe(first.relid, ID, &[(0, 4096, &[9])]);
        let view = first.host.map_gpadl(ID, ReadWrite).unwrap();
        guest.header(second.relid, ID + 1, 800, 1, &[800 << 9]);
        guest.heard();
        guest.post(MessageType::Unload, &());
        assert_eq!(guest.heard(), []);
        drop(first.host);
        drop(second.host);
        assert_eq!(guest.heard(), [], "a view is left");
        drop(view);
        assert_eq!(guest.heard(), [FromHost::Other(MessageType::UnloadResponse)]);
        let report = guest.vm.inspect();
        assert!(report.gpadls.is_empty() && report.gpadls_arriving == 0);
        assert!(guest.vm.synic().doorbells().is_empty());
        guest.contact();
        assert_eq!((guest.relid(0), guest.relid(1)), relids);
    }
}
