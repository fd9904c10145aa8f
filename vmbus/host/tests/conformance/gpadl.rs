//! GPADLs on their way in: vmbus-core 4.3, checklist 35 to 43 and 45; kmcl 1 to 8.

use vmbus_host::core::Ignored;

use crate::common::{Guest, LOW_PAGES, Range, Reply, post};

// 35, kmcl 1 to 3: boundaries of header (26 pages) and bodies (28 each).
#[test]
fn test_gpadl_at_message_boundaries_is_created_with_its_last_message() {
    let edges = (0..=10).flat_map(|bodies| [26 + 28 * bodies, 27 + 28 * bodies]);
    for pages in [1, 2, 25].into_iter().chain(edges).chain([54, 55]) {
        let mut guest = Guest::v5_3(1);
        let messages = post::gpadl(1, 5, &[Range::pages(3, pages)]);
        assert_eq!(messages.len(), 1 + pages.saturating_sub(26).div_ceil(28), "{pages} pages");
        let (last, first) = messages.split_last().unwrap();
        for message in first {
            assert_eq!(guest.ask(message), [], "{pages} pages");
        }
        assert_eq!(guest.ask(last), [Reply::created(1, 5)], "{pages} pages");
        let reports = guest.core.gpadl_reports();
        assert_eq!((reports[0].pages, reports[0].bytes, reports[0].runs), (pages, pages * 4096, 1));
    }
}

// 36
#[test]
fn test_gpadl_of_the_largest_list_completes_after_293_messages() {
    let mut guest = Guest::v5_3(1);
    let pages = (0..8190).map(|page| (page * 7919) % LOW_PAGES).collect();
    let range = Range { count: 8190 * 4096, offset: 0, pages };
    assert_eq!(post::gpadl(1, 5, std::slice::from_ref(&range)).len(), 293);
    assert_eq!(guest.create_ranges(1, 5, &[range]), [Reply::created(1, 5)]);
}

// 37
#[test]
fn test_gpadl_bytes_past_the_declared_end_are_ignored() {
    let mut guest = Guest::v5_3(1);
    for pages in [1, 26, 27, 54, 55] {
        for mut message in post::gpadl(1, 5, &[Range::pages(0, pages)]) {
            message.resize(240, 0xFF);
            guest.post(&message).unwrap();
        }
        assert_eq!(guest.take(), [Reply::created(1, 5)], "{pages} pages");
        assert_eq!(guest.core.gpadl_reports()[0].pages, pages);
        assert_eq!(
            guest.post(&post::body(5, &[0; 8])),
            Err(Ignored::Gpadl(5)),
            "a body after the end"
        );
        assert_eq!(guest.ask(&post::teardown(1, 5)), [Reply::Torndown(5)]);
    }
}

// 37: a list longer than its ranges need is taken, its rest ignored.
#[test]
fn test_gpadl_with_more_words_than_its_ranges_need_is_created() {
    let mut guest = Guest::v5_3(1);
    let mut data = post::range_data(&[Range::pages(0, 2)]);
    data.extend([0; 24]);
    assert_eq!(guest.ask(&post::header(1, 5, 1, 48, &data)), [Reply::created(1, 5)]);
}

// 38, 39, 42, kmcl 6 and 8
#[test]
fn test_gpadl_with_a_bad_list_is_refused_and_its_handle_free() {
    let range = |count, offset, pages: &[u64]| Range { count, offset, pages: pages.to_vec() };
    let page = 4096;
    for (what, ranges) in [
        ("byte count 0", vec![range(0, 0, &[0])]),
        ("byte offset 0x1000", vec![range(page, 0x1000, &[0, 1])]),
        ("byte offset u32::MAX", vec![range(page, u32::MAX, &[0, 1])]),
        ("overflow", vec![range(u32::MAX, 0xFFF, &[0, 1])]),
        ("huge count", vec![range(u32::MAX, 0, &[0, 1])]),
        ("a page short", vec![range(2 * page, 0, &[0])]),
        ("a page short by the offset", vec![range(page, 1, &[0])]),
        ("second range short", vec![range(page, 0, &[0]), range(page, 4, &[0])]),
        ("second range empty", vec![range(page, 0, &[0]), range(0, 0, &[])]),
        ("page in the hole", vec![range(page, 0, &[LOW_PAGES])]),
        ("page after RAM", vec![range(page, 0, &[(1 << 20) + 16])]),
        ("page u64::MAX", vec![range(page, 0, &[u64::MAX])]),
        ("page whose address overflows", vec![range(page, 0, &[1 << 52])]),
        ("second page in the hole", vec![range(2 * page, 0, &[0, LOW_PAGES])]),
    ] {
        let mut guest = Guest::v5_3(1);
        let replies = guest.create_ranges(1, 5, &ranges);
        assert!(replies.len() == 1 && replies[0].is_refusal_of(1, 5), "{what}: {replies:?}");
        assert_eq!(
            (guest.core.gpadl_reports().len(), guest.core.gpadls_arriving()),
            (0, 0),
            "{what}"
        );
        assert_eq!(guest.create(1, 5, 30), [Reply::created(1, 5)], "{what}");
    }
}

// 38, 39, kmcl 6: flaws that the header alone shows.
#[test]
fn test_gpadl_header_whose_numbers_disagree_is_refused() {
    let data = post::range_data(&[Range::pages(0, 26)]);
    for (ranges, buflen) in [
        (0, 216),
        (0, 0),
        (1, 0),
        (1, 7),
        (1, 217),
        (1, 65_535),
        (28, 216),
        (u16::MAX, 216),
        (1, 8),
        (1, 208),
    ] {
        let mut guest = Guest::v5_3(1);
        let replies = guest.ask(&post::header(1, 5, ranges, buflen, &data));
        assert!(
            replies.len() == 1 && replies[0].is_refusal_of(1, 5),
            "{ranges} {buflen}: {replies:?}"
        );
        assert_eq!(guest.create(1, 5, 30), [Reply::created(1, 5)]);
    }
}

// 38: the bad page is in a body; the bodies behind it belong to no GPADL.
#[test]
fn test_gpadl_with_a_bad_page_in_a_body_is_refused_once() {
    let mut guest = Guest::v5_3(1);
    let mut range = Range::pages(0, 200);
    range.pages[60] = LOW_PAGES + 5;
    let replies = guest.create_ranges(1, 5, &[range]);
    assert!(replies.len() == 1 && replies[0].is_refusal_of(1, 5), "{replies:?}");
}

// Empty messages are no progress and no harm.
#[test]
fn test_gpadl_in_pieces_of_no_words_continues() {
    let mut guest = Guest::v5_3(1);
    let data = post::range_data(&[Range::pages(0, 3)]);
    assert_eq!(guest.ask(&post::header(1, 5, 1, 32, &[])), []);
    assert_eq!(guest.ask(&post::body(5, &[])), []);
    for word in data[..24].chunks(8) {
        assert_eq!(guest.ask(&post::body(5, word)), []);
    }
    assert_eq!(guest.ask(&post::body(5, &data[24..])), [Reply::created(1, 5)]);
}

// 40, kmcl 7
#[test]
fn test_gpadl_handle_in_use_on_the_channel_is_refused_and_the_first_stays() {
    let mut guest = Guest::v5_3(1);
    assert_eq!(guest.create(1, 5, 3), [Reply::created(1, 5)]);
    let view = guest.map(1, 5).unwrap();
    let replies = guest.create(1, 5, 7);
    assert!(replies.len() == 1 && replies[0].is_refusal_of(1, 5), "{replies:?}");
    view.write(0, &[1; 64]).unwrap();
    assert_eq!(guest.core.gpadl_reports()[0].pages, 3);
}

// 4.3: bodies carry no relid, so a handle in progress is one for all channels.
#[test]
fn test_gpadl_handle_in_progress_anywhere_is_refused_and_the_first_completes() {
    for relid in [1, 2] {
        let mut guest = Guest::v5_3(2);
        let messages = post::gpadl(1, 5, &[Range::pages(0, 30)]);
        assert_eq!(guest.ask(&messages[0]), []);
        let replies = guest.create(relid, 5, 3);
        assert!(replies.len() == 1 && replies[0].is_refusal_of(relid, 5), "{replies:?}");
        assert_eq!(guest.ask(&messages[1]), [Reply::created(1, 5)]);
    }
}

// One handle on two channels, once neither is in progress, is two GPADLs.
#[test]
fn test_gpadl_handle_on_two_channels_is_two_gpadls() {
    let mut guest = Guest::v5_3(2);
    assert_eq!(guest.create(1, 5, 3), [Reply::created(1, 5)]);
    assert_eq!(guest.create(2, 5, 4), [Reply::created(2, 5)]);
    let view = guest.map(1, 5).unwrap();
    assert_eq!(guest.ask(&post::teardown(1, 5)), []);
    assert_eq!(guest.ask(&post::teardown(2, 5)), [Reply::Torndown(5)]);
    assert_eq!(guest.drop_view(view), [Reply::Torndown(5)]);
}

// 41, kmcl 2
#[test]
fn test_gpadl_bodies_interleaved_over_channels_and_other_messages_assemble() {
    let mut guest = Guest::v5_3(2);
    let first = post::gpadl(1, 5, &[Range::pages(0x100, 100)]);
    let second = post::gpadl(2, 6, &[Range::pages(0x200, 90)]);
    for (one, two) in first.iter().zip(&second) {
        guest.post(one).unwrap();
        guest.post(two).unwrap();
        guest.post(&post::modify(1, 0)).unwrap();
    }
    let done: Vec<_> =
        guest.take().into_iter().filter(|reply| !matches!(reply, Reply::Modified { .. })).collect();
    assert_eq!(done, [Reply::created(1, 5), Reply::created(2, 6)]);
    for (relid, id, page) in [(1, 5, 0x100), (2, 6, 0x200)] {
        let gpadl = guest.core.gpadl(relid, id).unwrap();
        assert_eq!(gpadl.buffer().guest_pages().next(), Some(page));
    }
}

// kmcl 4 and 5
#[test]
fn test_gpadl_of_two_ranges_reads_as_their_concatenation() {
    use vm_memory::{Bytes, GuestAddress};

    let mut guest = Guest::v5_3(1);
    let ranges = [
        Range { count: 5000, offset: 0x123, pages: vec![9, 3] },
        Range { count: 100, offset: 0xFF0, pages: vec![7, 1] },
    ];
    assert_eq!(guest.create_ranges(1, 5, &ranges), [Reply::created(1, 5)]);
    let view = guest.map(1, 5).unwrap();
    let bytes: Vec<u8> = (0..5100_u32).map(|byte| (byte % 251) as u8).collect();
    view.write(0, &bytes).unwrap();
    let mut addresses = Vec::new();
    for range in &ranges {
        for byte in 0..u64::from(range.count) {
            let position = u64::from(range.offset) + byte;
            addresses.push(range.pages[(position / 4096) as usize] * 4096 + position % 4096);
        }
    }
    for (address, byte) in addresses.into_iter().zip(bytes) {
        assert_eq!(guest.ram.memory().read_obj::<u8>(GuestAddress(address)).unwrap(), byte);
    }
}

// 45
#[test]
fn test_gpadl_on_an_unknown_channel_is_refused_with_its_relid() {
    let mut guest = Guest::v5_3(1);
    for relid in [0, 2, 2047, 2048, u32::MAX] {
        let replies = guest.create(relid, 5, 3);
        assert!(replies.len() == 1 && replies[0].is_refusal_of(relid, 5), "{replies:?}");
        assert_eq!(guest.post(&post::teardown(relid, 5)), Err(Ignored::Channel(relid)));
    }
}

// Pages may repeat, come in any order and lie in every region of RAM.
#[test]
fn test_gpadl_with_repeated_and_far_pages_is_created() {
    let mut guest = Guest::v5_3(1);
    let pages = vec![5, 5, 4, (1 << 20) + 15, 0, LOW_PAGES - 1];
    let range = Range { count: 6 * 4096, offset: 0, pages: pages.clone() };
    assert_eq!(guest.create_ranges(1, 5, &[range]), [Reply::created(1, 5)]);
    let listed: Vec<u64> = guest.core.gpadl(1, 5).unwrap().buffer().guest_pages().collect();
    assert_eq!(listed, pages);
}
