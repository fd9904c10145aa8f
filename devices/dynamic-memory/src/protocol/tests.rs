//! The protocol's checklist (spec integration-services section 11, items 18 to 25).

use proptest::prelude::*;

use super::*;

fn message(kind: u16, transaction: u32, body: &[u8]) -> Vec<u8> {
    let size = 8 + u16::try_from(body.len()).unwrap();
    [&kind.to_le_bytes()[..], &size.to_le_bytes(), &transaction.to_le_bytes(), body].concat()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn version(word: u32, is_last: bool) -> Vec<u8> {
    message(1, 7, &words(&[word, is_last.into()]))
}

/// A report of a guest with a balloon and an alignment of 128 MiB.
fn capabilities() -> Vec<u8> {
    let longs = [0b1_1111, 0, u64::MAX];
    message(3, 8, &longs.map(u64::to_le_bytes).concat())
}

fn response(more: bool, ranges: &[(u64, u64)]) -> Vec<u8> {
    let count = u32::try_from(ranges.len()).unwrap();
    let mut body = words(&[0, u32::from(more) | count << 1]);
    for (first, pages) in ranges {
        body.extend((first | pages << 40).to_le_bytes());
    }
    message(7, 0, &body)
}

/// Returns a session that is ready.
fn ready() -> Session {
    let mut session = Session::new(1 << 20);
    session.handle(&version(0x2_0000, false)).unwrap();
    let outcome = session.handle(&capabilities()).unwrap();
    assert_eq!(outcome.event, Event::Ready);
    session
}

fn ranges(list: &[(u64, u64)]) -> Vec<PageRange> {
    list.iter().map(|(first, pages)| PageRange::new(*first, *pages)).collect()
}

/// Asks for pages, and returns the number that the message has.
fn asked(session: &mut Session, pages: u32) -> Option<u32> {
    let message = session.balloon(pages)?;
    assert_eq!((message[0], message[2], message.len()), (6, 16, 16));
    Some(u32::from_le_bytes(message[8..12].try_into().unwrap()))
}

#[test]
fn test_protocol_18_each_version_is_accepted_and_unknown_ones_are_not() {
    for (word, known) in [(0x3, "0.3"), (0x1_0000, "1.0"), (0x2_0000, "2.0")] {
        let mut session = Session::new(1 << 20);
        for unknown in [0x3_0000, 0x2_0001, 0, 1] {
            let outcome = session.handle(&version(unknown, false)).unwrap();
            assert_eq!(outcome.replies, [message(2, 7, &[0; 8])], "the guest tries the next");
            assert_eq!(outcome.refused, None);
        }
        let outcome = session.handle(&version(word, false)).unwrap();
        assert_eq!(outcome.replies, [message(2, 7, &1_u64.to_le_bytes())]);
        assert_eq!(session.version().unwrap().to_string(), known);
        let outcome = session.handle(&capabilities()).unwrap();
        assert_eq!(outcome.replies[0], message(4, 8, &1_u64.to_le_bytes()));
        let expected = message(12, 1, &words(&[0, 16, 0, 8, 1 << 20, 0]));
        // Version 0.3 has no information messages.
        assert_eq!(outcome.replies.get(1), (word != 3).then_some(&expected));
        assert_eq!(session.capabilities().alignment_pages(), 32_768);
    }
    let outcome = Session::new(0).handle(&version(9, true)).unwrap();
    assert_eq!(outcome.refused, Some(Rejected::NoVersion));
}

#[test]
fn test_protocol_messages_out_of_order_have_no_effect() {
    let mut session = Session::new(0);
    let status = message(5, 1, &[0; 40]);
    for early in [capabilities(), status.clone(), response(false, &[])] {
        assert!(matches!(session.handle(&early), Err(Rejected::Order(_))));
    }
    assert_eq!(session.balloon(1), None);
    session.handle(&version(0x2_0000, false)).unwrap();
    for early in [version(0x2_0000, false), status.clone()] {
        assert!(matches!(session.handle(&early), Err(Rejected::Order(_))));
    }
    session.handle(&capabilities()).unwrap();
    for late in [version(0x2_0000, false), capabilities()] {
        assert!(matches!(session.handle(&late), Err(Rejected::Order(_))));
    }
    assert_eq!(session.handle(&status).unwrap().event, Event::Pressure(Pressure::default()));
}

#[test]
fn test_protocol_status_has_available_and_committed_pages() {
    let longs = [11_u64, 22, 33, 44, 55].map(u64::to_le_bytes).concat();
    let outcome = ready().handle(&message(5, 9, &longs)).unwrap();
    let expected = Pressure { available: 11, committed: 22 };
    assert_eq!(outcome.event, Event::Pressure(expected));
}

#[test]
fn test_protocol_19_balloon_takes_no_more_pages_than_asked_for() {
    let mut session = ready();
    assert_eq!(
        session.handle(&response(false, &[(1, 1)])),
        Err(Rejected::NotAsked("balloon response"))
    );
    assert_eq!(asked(&mut session, 600), Some(600));
    assert_eq!(session.balloon(1), None, "one request at a time");
    let outcome = session.handle(&response(true, &[(512, 512), (9, 1)])).unwrap();
    let expected = Event::Ballooned { ranges: ranges(&[(512, 512), (9, 1)]), is_last: false };
    assert_eq!(outcome.event, expected);
    let rest = Err(Rejected::NotAsked("balloon response"));
    assert_eq!(session.handle(&response(true, &[(1024, 88)])), rest, "one page too many");
    assert!(session.handle(&response(false, &[(1024, 87)])).is_ok());
    assert_eq!(session.handle(&response(false, &[])), rest, "the request is answered");
    assert!(session.may_request());
    // Fewer pages, or none, are an answer too.
    assert_eq!(asked(&mut session, 5), Some(5));
    let outcome = session.handle(&response(false, &[])).unwrap();
    assert_eq!(outcome.event, Event::Ballooned { ranges: Vec::new(), is_last: true });
    assert_eq!(session.handle(&response(false, &[(1, 1)])), rest);
}

#[test]
fn test_protocol_late_answer_to_a_forgotten_request_still_counts_once() {
    let mut session = ready();
    asked(&mut session, 100);
    session.forget_request();
    asked(&mut session, 50);
    assert!(session.handle(&response(true, &[(0, 100)])).is_ok());
    assert!(session.handle(&response(false, &[(200, 50)])).is_ok());
    assert!(session.handle(&response(false, &[(300, 1)])).is_err());
}

#[test]
fn test_protocol_20_unballoon_of_many_ranges_has_one_answer_after_the_last_message() {
    let mut session = ready();
    let many: Vec<_> =
        (0..MAX_UNBALLOON_RANGES as u64).map(|at| PageRange::new(2 * at, 1)).collect();
    let messages = session.unballoon(&many);
    assert_eq!(messages.len(), MAX_UNBALLOON_MESSAGES);
    for (index, message) in messages.iter().enumerate() {
        let more = index + 1 < messages.len();
        assert_eq!((message[0], message[8], message.len()), (8, more.into(), MAX_MESSAGE));
        assert_eq!(u32::from_le_bytes(message[12..16].try_into().unwrap()), 510);
    }
    assert_eq!(session.unballoon(&many[..1]), Vec::<Vec<u8>>::new());
    assert_eq!(session.handle(&message(9, 0, &[])).unwrap().event, Event::Unballooned);
    let again = session.handle(&message(9, 0, &[]));
    assert_eq!(again, Err(Rejected::NotAsked("taking of pages")));
    assert_eq!(session.unballoon(&[]), Vec::<Vec<u8>>::new());
    let one = session.unballoon(&many[5..6]);
    assert_eq!(
        one,
        [message(8, 6, &[words(&[0, 1]), many[5].word().to_le_bytes().to_vec()].concat())]
    );
}

#[test]
fn test_protocol_22_response_whose_sizes_disagree_is_refused() {
    let mut session = ready();
    asked(&mut session, 1000);
    let good = response(false, &[(1, 1), (2, 1)]);
    let mut long = good.clone();
    long[2] += 8;
    let mut many = good.clone();
    many[12] = 3 << 1;
    let mut huge = good.clone();
    huge[12..16].copy_from_slice(&[0xFF; 4]);
    assert!(matches!(session.handle(&long), Err(Rejected::Size { kind: 7, .. })));
    assert!(matches!(session.handle(&many), Err(Rejected::Ranges { count: 3, .. })));
    assert!(matches!(session.handle(&huge), Err(Rejected::Ranges { .. })));
    assert!(matches!(session.handle(&good[..12]), Err(Rejected::Size { .. })));
    assert!(matches!(session.handle(&good[..3]), Err(Rejected::Size { kind: 0, bytes: 3 })));
    assert!(session.handle(&good).is_ok());
}

#[test]
fn test_protocol_23_hot_add_is_aligned_as_the_guest_needs_it() {
    let mut session = ready();
    let chunk = 32_768;
    for wrong in [(1, chunk), (chunk, 1), (chunk, 0), (0, 1 << 24)] {
        assert_eq!(session.hot_add(PageRange::new(wrong.0, wrong.1)), None, "{wrong:?}");
    }
    let range = PageRange::new(4 * chunk, 2 * chunk);
    let expected = message(10, 2, &range.word().to_le_bytes());
    for (answer, outcome) in [
        ([2 * 32_768, 1], HotAddOutcome::Added(2 * 32_768)),
        ([32_768, 1], HotAddOutcome::Added(32_768)),
        ([u32::MAX, 1], HotAddOutcome::Added(2 * 32_768)),
        ([0, 0], HotAddOutcome::Failed),
        ([0, 1], HotAddOutcome::Refused),
    ] {
        let mut session = session.clone();
        assert_eq!(session.hot_add(range), Some(expected.clone()));
        assert_eq!(session.balloon(1), None);
        let event = session.handle(&message(11, 99, &words(&answer))).unwrap().event;
        assert_eq!(event, Event::HotAdded { range, outcome });
        assert!(session.handle(&message(11, 99, &words(&answer))).is_err());
    }
}

#[test]
fn test_protocol_25_types_of_the_host_and_unknown_ones_are_refused() {
    let mut session = ready();
    for kind in [0, 2, 4, 6, 8, 10, 12, 13, u16::MAX] {
        assert_eq!(session.handle(&message(kind, 0, &[0; 40])), Err(Rejected::Kind(kind)));
    }
}

#[test]
fn test_range_word_has_the_first_page_below_the_count() {
    let range = PageRange::new(0x12_3456_789A, 0xAB_CDEF);
    assert_eq!(range.word(), 0xABCD_EF12_3456_789A);
    assert_eq!(PageRange::from_word(u64::MAX), PageRange::new((1 << 40) - 1, PageRange::MAX_PAGES));
}

proptest! {
    #[test]
    fn test_range_survives_the_wire(first in 0_u64..1 << 40, pages in 0_u64..1 << 24) {
        let range = PageRange::new(first, pages);
        prop_assert_eq!(PageRange::from_word(range.word()), range);
    }

    #[test]
    fn test_protocol_takes_any_bytes_and_never_more_pages_than_asked_for(
        packets in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..64),
                (any::<bool>(), prop::collection::vec((0_u64..1 << 30, 0_u64..300), 0..4))
                    .prop_map(|(more, ranges)| response(more, &ranges)),
                Just(message(9, 0, &[])),
            ],
            0..30,
        ),
    ) {
        let mut session = ready();
        let (mut asked, mut given) = (0_u64, 0_u64);
        for packet in packets {
            if session.balloon(400).is_some() {
                asked += 400;
            }
            if let Ok(Outcome { event: Event::Ballooned { ranges, .. }, .. }) = session.handle(&packet) {
                given += ranges.iter().map(|range| range.pages).sum::<u64>();
            }
            prop_assert!(given <= asked);
        }
    }
}
