//! Open, close, modify: vmbus-core 4.4 and 4.5, checklist 46 to 52 and 56; kmcl 12.

use vmbus_host::core::{ChannelState, Ignored};
use vmbus_protocol::Version;
use vmbus_protocol::offer::NO_INTERRUPT_VP;

use crate::common::{Answer, Guest, Range, Reply, VPS, post};

fn fails(guest: &mut Guest, message: &[u8], relid: u32) {
    let replies = guest.ask(message);
    assert!(replies.len() == 1 && replies[0].is_open_failure_of(relid, relid), "{replies:?}");
}

// 46
#[test]
fn test_open_splits_the_ring_only_where_both_rings_have_data() {
    for pages in [2, 3, 4, 5, 8, 16] {
        let mut guest = Guest::v5_3(1);
        guest.create(1, 10, pages as usize);
        for offset in (0..pages + 2).chain([u32::MAX]) {
            if offset >= 2 && pages >= 2 && offset <= pages - 2 {
                assert_eq!(guest.ask(&post::open(1, 10, offset, 0)), [Reply::opened(1)]);
                assert_eq!(guest.held[&guest.key(1)].downstream_page, offset as usize);
                assert_eq!(guest.ask(&post::close(1)), []);
            } else {
                fails(&mut guest, &post::open(1, 10, offset, 0), 1);
                assert_eq!(guest.state(1), Some(ChannelState::Closed));
            }
        }
    }
}

// 47
#[test]
fn test_open_with_a_gpadl_that_is_no_ring_fails() {
    let page = 4096;
    let mut guest = Guest::v5_3(1);
    let whole = |first| Range::pages(first, 8);
    for (id, ranges) in [
        (20, vec![Range { count: 7 * page, offset: 16, pages: (0..8).collect() }]),
        (21, vec![whole(0), whole(8)]),
        (22, vec![Range { count: 8 * page - 8, offset: 0, pages: (0..8).collect() }]),
    ] {
        assert_eq!(guest.create_ranges(1, id, &ranges), [Reply::created(1, id)]);
        fails(&mut guest, &post::open(1, id, 4, 0), 1);
        assert_eq!(guest.ask(&post::teardown(1, id)), [Reply::Torndown(id)], "nothing holds it");
    }
    guest.post(&post::header(1, 23, 1, 72, &[])).unwrap();
    guest.create(1, 24, 8);
    let view = guest.map(1, 24).unwrap();
    guest.create(1, 25, 8);
    let going = guest.map(1, 25).unwrap();
    guest.post(&post::teardown(1, 25)).unwrap();
    for (id, why) in
        [(23, "in progress"), (24, "mapped by the device"), (25, "going"), (26, "unknown")]
    {
        println!("{why}");
        fails(&mut guest, &post::open(1, id, 4, 0), 1);
    }
    drop((view, going));
}

// 4.4
#[test]
fn test_open_for_a_vp_that_does_not_exist_fails() {
    let mut guest = Guest::v5_3(1);
    guest.create(1, 10, 8);
    for vp in [VPS, u32::MAX - 1] {
        fails(&mut guest, &post::open(1, 10, 4, vp), 1);
    }
    for vp in [0, VPS - 1, NO_INTERRUPT_VP] {
        assert_eq!(guest.ask(&post::open(1, 10, 4, vp)), [Reply::opened(1)]);
        assert_eq!(guest.held[&guest.key(1)].target_vp, vp);
        guest.post(&post::close(1)).unwrap();
    }
}

// 48
#[test]
fn test_open_result_echoes_the_open_id_once_and_the_event_follows() {
    let mut guest = Guest::v5_3(2);
    guest.create(2, 10, 8);
    guest.on_open = Answer::Hold;
    assert_eq!(guest.ask(&post::open_with_id(2, 0xABCD, 10, 4, 3)), []);
    assert!(guest.signals.is_empty(), "no event before the result");
    guest.opened(true);
    assert_eq!(guest.take(), [Reply::OpenResult { relid: 2, open_id: 0xABCD, status: 0 }]);
    assert_eq!(guest.signals, [guest.key(2)]);
    let params = &guest.held[&guest.key(2)];
    assert_eq!((params.relid, params.event_flag, params.subchannel), (2, 2, 0));
    assert_eq!(params.user_data, [7; 120]);
}

// 49
#[test]
fn test_open_while_open_or_opening_fails_and_the_first_continues() {
    let mut guest = Guest::v5_3(1);
    guest.create(1, 10, 8);
    guest.create(1, 11, 8);
    guest.on_open = Answer::Hold;
    assert_eq!(guest.ask(&post::open(1, 10, 4, 0)), []);
    fails(&mut guest, &post::open(1, 11, 4, 0), 1);
    guest.opened(true);
    assert_eq!(guest.take(), [Reply::opened(1)]);
    fails(&mut guest, &post::open(1, 11, 4, 0), 1);
    assert_eq!(guest.held[&guest.key(1)].ring.key().id, 10);
    assert_eq!(guest.ask(&post::teardown(1, 11)), [Reply::Torndown(11)]);
}

#[test]
fn test_open_of_an_unknown_channel_is_ignored() {
    let mut guest = Guest::v5_3(1);
    for relid in [0, 2, 2047, 2048, u32::MAX] {
        for message in [post::open(relid, 10, 4, 0), post::close(relid), post::release(relid)] {
            assert_eq!(guest.post(&message), Err(Ignored::Channel(relid)));
        }
    }
    assert_eq!(guest.take(), []);
}

// kmcl 12
#[test]
fn test_open_refused_by_the_device_leaves_gpadls_and_can_be_repeated() {
    let mut guest = Guest::v5_3(1);
    guest.create(1, 10, 8);
    guest.create(1, 11, 3);
    guest.on_open = Answer::Refuse;
    fails(&mut guest, &post::open(1, 10, 4, 0), 1);
    assert!(guest.signals.is_empty());
    guest.on_open = Answer::Accept;
    assert_eq!(guest.ask(&post::open(1, 10, 4, 0)), [Reply::opened(1)]);
    assert_eq!(guest.ask(&post::teardown(1, 11)), [Reply::Torndown(11)]);
}

// 51
#[test]
fn test_open_pipelined_behind_close_and_teardown_happens_when_the_device_let_go() {
    let mut guest = Guest::closing();
    guest.post(&post::teardown(1, 10)).unwrap();
    assert_eq!(guest.create(1, 11, 8), [Reply::created(1, 11)]);
    assert_eq!(guest.ask(&post::open_with_id(1, 77, 11, 4, 1)), []);
    guest.closed();
    let opened = Reply::OpenResult { relid: 1, open_id: 77, status: 0 };
    assert_eq!(guest.take(), [Reply::Torndown(10), opened]);
    assert_eq!(guest.held[&guest.key(1)].ring.key().id, 11);
}

// 51: the same ring again.
#[test]
fn test_open_pipelined_behind_close_with_the_same_ring_works() {
    let mut guest = Guest::closing();
    assert_eq!(guest.ask(&post::open(1, 10, 2, 0)), []);
    guest.closed();
    assert_eq!(guest.take(), [Reply::opened(1)]);
}

// 49 for an open that waits: every one is answered, the first counts.
#[test]
fn test_open_twice_while_closing_answers_both() {
    let mut guest = Guest::closing();
    assert_eq!(guest.ask(&post::open_with_id(1, 100, 10, 4, 0)), []);
    let mut replies = guest.ask(&post::open_with_id(1, 101, 10, 4, 0));
    guest.closed();
    replies.extend(guest.take());
    assert_eq!(replies.len(), 2, "{replies:?}");
    assert!(replies[0].is_open_failure_of(1, 101), "{replies:?}");
    assert_eq!(replies[1], Reply::OpenResult { relid: 1, open_id: 100, status: 0 });
}

// 52
#[test]
fn test_open_missing_close_is_ignored() {
    let mut guest = Guest::v5_3(1);
    assert_eq!(guest.post(&post::close(1)), Err(Ignored::ChannelState(1)));
    guest.open(1, 10);
    guest.on_close = Answer::Hold;
    guest.post(&post::close(1)).unwrap();
    assert_eq!(guest.post(&post::close(1)), Err(Ignored::ChannelState(1)));
    assert_eq!(guest.closing.len(), 1, "the device is asked once");
    guest.closed();
    assert_eq!(guest.post(&post::close(1)), Err(Ignored::ChannelState(1)));
    guest.open(1, 11);
}

// kmcl 16, the host's half: the device stops on its own, the guest closes and opens again, the
// others continue.
#[test]
fn test_open_channel_whose_device_gave_up_can_be_closed_and_opened() {
    let mut guest = Guest::v5_3(2);
    guest.open(1, 10);
    guest.open(2, 11);
    guest.fault(1);
    assert_eq!(guest.state(1), Some(ChannelState::Faulted));
    fails(&mut guest, &post::open(1, 10, 4, 0), 1);
    assert_eq!(guest.ask(&post::close(1)), []);
    assert_eq!(guest.ask(&post::open(1, 10, 4, 0)), [Reply::opened(1)]);
    assert_eq!(guest.state(2), Some(ChannelState::Open));
}

// 56
#[test]
fn test_open_modify_moves_events_and_is_answered_from_5_3_on() {
    for version in [Version::V4_1, Version::V5_0, Version::V5_2, Version::V5_3, Version::V6_0] {
        let mut guest = Guest::connected(3, version);
        guest.open(1, 10);
        guest.create(2, 11, 8);
        guest.post(&post::open(2, 11, 4, NO_INTERRUPT_VP)).unwrap();
        guest.take();
        guest.signals.clear();
        for (relid, vp, good) in [
            (1, 3, true),
            (1, 0, true),
            (1, VPS, false),
            (1, NO_INTERRUPT_VP, false),
            (2, 1, false),
            (3, 1, false),
            (4, 1, false),
            (0, 1, false),
        ] {
            let replies = guest.ask(&post::modify(relid, vp));
            if version < Version::V5_3 {
                assert_eq!(replies, [], "{version}");
            } else {
                let [Reply::Modified { relid: of, status }] = replies[..] else {
                    panic!("{replies:?}")
                };
                assert_eq!(
                    (of, status == 0),
                    (relid, good),
                    "{version} channel {relid} to VP {vp}"
                );
            }
        }
        let key = guest.key(1);
        assert_eq!(guest.retargets, [(key, 3), (key, 0)], "{version}");
        assert_eq!(guest.signals, [key, key], "the new VP looks once");
    }
}

/// Plays every sequence of up to six OPENs and CLOSEs against a device that answers nothing before
/// the end. Each OPEN is answered once, and the last message decides whether the channel ends open.
#[test]
fn test_open_and_close_in_any_order_on_a_slow_device_end_as_the_last_one_says() {
    for length in 1..=6 {
        for sequence in 0_u32..1 << length {
            let opens: Vec<bool> = (0..length).map(|bit| sequence >> bit & 1 == 1).collect();
            for accepts in [true, false] {
                check_sequence(&opens, accepts);
            }
        }
    }
}

/// `opens`: true for OPEN, false for CLOSE.
fn check_sequence(opens: &[bool], accepts: bool) {
    let mut guest = Guest::v5_3(1);
    guest.create(1, 10, 8);
    (guest.on_open, guest.on_close) = (Answer::Hold, Answer::Hold);
    for (number, &open) in (0..).zip(opens) {
        let message = if open { post::open_with_id(1, number, 10, 4, 0) } else { post::close(1) };
        let _ = guest.post(&message);
    }
    loop {
        if !guest.opening.is_empty() {
            guest.opened(accepts);
        } else if !guest.closing.is_empty() {
            guest.closed();
        } else {
            break;
        }
    }
    // A second OPEN without a CLOSE in between fails and changes nothing.
    let is_served = |at: usize| {
        opens[at] && accepts && (at == 0 || !opens[at - 1]) && opens[at..].iter().all(|&open| open)
    };
    let served: Vec<usize> = (0..opens.len()).filter(|&at| is_served(at)).collect();
    let mut answered = vec![0; opens.len()];
    for reply in guest.take() {
        let Reply::OpenResult { open_id, status, .. } = reply else {
            panic!("{opens:?}: {reply:?}")
        };
        answered[open_id as usize] += 1;
        assert_eq!(
            status == 0,
            served.contains(&(open_id as usize)),
            "{opens:?}: result of {open_id}"
        );
    }
    let expected: Vec<i32> = opens.iter().map(|&open| i32::from(open)).collect();
    assert_eq!(answered, expected, "{opens:?}: each OPEN is answered once");
    let state = if served.is_empty() { ChannelState::Closed } else { ChannelState::Open };
    assert_eq!(guest.state(1), Some(state), "{opens:?}, the device accepts: {accepts}");
}

/// A channel that the guest closed while its device was being asked can be released and rescinded
/// as a closed one.
#[test]
fn test_close_while_opening_then_release_or_rescind_ends_without_a_device() {
    for rescinds in [false, true] {
        for accepts in [true, false] {
            let mut guest = Guest::v5_3(1);
            guest.create(1, 10, 8);
            (guest.on_open, guest.on_close) = (Answer::Hold, Answer::Hold);
            let key = guest.key(1);
            assert_eq!(guest.ask(&post::open(1, 10, 4, 0)), []);
            fails(&mut guest, &post::close(1), 1);
            if rescinds {
                guest.rescind(key);
            } else {
                guest.post(&post::release(1)).unwrap();
            }
            guest.opened(accepts);
            if accepts {
                guest.closed();
            }
            assert_eq!(guest.take(), if rescinds { vec![Reply::Rescind(1)] } else { vec![] });
            assert!(guest.held.is_empty());
            assert_eq!(guest.bound.is_empty(), !rescinds, "a released relid is free");
        }
    }
}
