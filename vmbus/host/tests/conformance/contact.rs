//! Connection: vmbus-core 3, checklist 17 to 25, 28 to 30, 34.

use vmbus_host::core::{ConnectionState, Ignored};
use vmbus_protocol::Version;
use vmbus_protocol::message::InitiateContact;
use zerocopy::little_endian::{U32, U64};

use crate::common::{Answer, Guest, Reply, VPS, post};

fn refused() -> Reply {
    Reply::Version { supported: 0, state: 0, word: 0, features: None }
}

/// The answer to an accepted contact on `connection_id`.
fn accepted(version: Version, connection_id: u32) -> Reply {
    let word = if version >= Version::V5_0 { connection_id } else { version.word() };
    Reply::Version {
        supported: 1,
        state: 0,
        word,
        features: (version == Version::V6_0).then_some(0),
    }
}

// 17, 22, 30
#[test]
fn test_contact_with_each_version_is_accepted_with_its_own_response() {
    for version in Version::ALL {
        for connection_id in [1, 4] {
            let mut guest = Guest::new(1);
            let mut body = InitiateContact::new(version.word(), 0);
            body.target_info[4..].copy_from_slice(&[0xFF; 4]);
            if version < Version::V5_0 {
                // Linux writes its interrupt page to the field that has the SINT in later versions:
                // it must not be used as one.
                body.target_info = 0x1234_5000_u64.to_le_bytes();
            }
            guest.post_on(connection_id, &post::contact_with(&body)).unwrap();
            assert_eq!(
                guest.take(),
                [accepted(version, connection_id)],
                "{version} on {connection_id}"
            );
            assert_eq!(guest.sizes, [if version == Version::V6_0 { 20 } else { 16 }], "{version}");
            assert_eq!(guest.core.connection(), (ConnectionState::Connected, Some(version)));
            for port in [1, 4] {
                assert_ne!(
                    guest.post_on(port, &post::request_offers()),
                    Err(Ignored::Connection(port))
                );
            }
        }
    }
}

// 18
#[test]
fn test_contact_with_unknown_version_is_refused_exactly() {
    for word in
        [0x0009_0009, 0x0005_0004, 0, 0x0006_0001, 0x0002_0003, 0x0000_000D, 0x0001_0001, u32::MAX]
    {
        let mut guest = Guest::new(1);
        assert_eq!(guest.ask(&post::contact(word, 0)), [refused()], "{word:#x}");
        assert_eq!(guest.sizes, [16]);
        assert_eq!(guest.core.connection(), (ConnectionState::Disconnected, None));
        assert_eq!(guest.post(&post::request_offers()), Err(Ignored::Disconnected));
    }
}

// 3.1: even a contact that will be refused ends the old connection.
#[test]
fn test_contact_with_unknown_version_ends_the_old_connection() {
    let mut guest = Guest::v5_3(1);
    guest.open(1, 10);
    assert_eq!(guest.ask(&post::contact(0x0009_0009, 0)), [refused()]);
    assert!(guest.held.is_empty() && guest.core.gpadl_reports().is_empty());
    assert_eq!(guest.ask(&post::contact(Version::V4_1.word(), 0)), [accepted(Version::V4_1, 4)]);
}

// 19, 20
#[test]
fn test_contact_is_answered_at_its_target_vp_from_3_0_on() {
    for (version, vp) in
        [(Version::V2_4, 0), (Version::V3_0, 3), (Version::V5_0, 3), (Version::V6_0, 3)]
    {
        let mut guest = Guest::new(1);
        guest.post(&post::contact(version.word(), 3)).unwrap();
        guest.post(&post::request_offers()).unwrap();
        assert_eq!(guest.targets, [(vp, 2); 3], "{version}: response, offer, all delivered");
    }
}

// 19
#[test]
fn test_contact_for_another_sint_or_vtl_is_refused_there_and_changes_nothing() {
    let at_5_1 = Version::V5_1.word();
    for (word, sint, vtl, answered_at) in [
        (Version::V5_0.word(), 5, 0, Some(5)),
        (Version::V6_0.word(), 0, 0, Some(0)),
        (at_5_1, 2, 1, Some(2)),
        (at_5_1, 15, 1, Some(15)),
        (at_5_1, 16, 0, None),
        (at_5_1, 255, 255, None),
        (0x0009_0009, 5, 0, Some(5)),
    ] {
        let mut guest = Guest::v5_3(1);
        guest.open(1, 10);
        guest.targets.clear();
        let mut body = InitiateContact::new(word, 1);
        body.target_info[..2].copy_from_slice(&[sint, vtl]);
        let replies = guest.ask(&post::contact_with(&body));
        assert_eq!(replies, vec![refused(); usize::from(answered_at.is_some())], "SINT {sint}");
        assert_eq!(guest.targets, Vec::from_iter(answered_at.map(|sint| (1, sint))));
        assert!(guest.is_connected() && guest.held.len() == 1, "SINT {sint}");
    }
}

// 3.1: the first byte is a SINT only on connection id 4 from 5.0 on, the second a VTL only from 5.1
// on.
#[test]
fn test_contact_sint_and_vtl_where_they_mean_nothing_are_not_read() {
    for (port, version, sint, vtl) in [
        (1, Version::V5_3, 9, 1),
        (4, Version::V4_1, 9, 1),
        (4, Version::V5_0, 2, 1),
        (1, Version::V6_0, 0, 0),
    ] {
        let mut guest = Guest::new(0);
        let mut body = InitiateContact::new(version.word(), 0);
        body.target_info[..2].copy_from_slice(&[sint, vtl]);
        guest.post_on(port, &post::contact_with(&body)).unwrap();
        assert_eq!(guest.take(), [accepted(version, port)]);
    }
}

// 21
#[test]
fn test_contact_for_a_vp_that_does_not_exist_is_ignored() {
    for vp in [VPS, VPS + 1, u32::MAX] {
        let mut guest = Guest::v5_3(1);
        assert_eq!(guest.post(&post::contact(Version::V5_3.word(), vp)), Err(Ignored::Vp(vp)));
        assert_eq!(guest.take(), []);
        assert!(guest.is_connected());
    }
    let mut guest = Guest::new(1);
    assert_eq!(
        guest.ask(&post::contact(Version::V2_4.word(), u32::MAX)),
        [accepted(Version::V2_4, 4)]
    );
}

// 23
#[test]
fn test_contact_with_monitor_pages_that_make_no_sense_fails() {
    for (first, second, good) in [
        (0, 0, true),
        (0x1000, 0x2000, true),
        (0x1000, 0, false),
        (0, 0x1000, false),
        (0x1008, 0x2000, false),
    ] {
        for version in Version::ALL {
            let mut guest = Guest::new(1);
            let mut body = InitiateContact::new(version.word(), 0);
            (body.monitor_page1, body.monitor_page2) = (U64::new(first), U64::new(second));
            let failed = Reply::Version { supported: 1, state: 2, word: 0, features: None };
            let expected = if good { accepted(version, 4) } else { failed };
            assert_eq!(
                guest.ask(&post::contact_with(&body)),
                [expected],
                "{version} {first:#x} {second:#x}"
            );
            assert_eq!(guest.is_connected(), good);
        }
    }
}

// 24
#[test]
fn test_contact_missing_every_other_message_is_ignored() {
    let messages = [
        post::request_offers(),
        post::open(1, 1, 4, 0),
        post::close(1),
        post::header(1, 1, 1, 16, &[0; 16]),
        post::body(1, &[0; 8]),
        post::teardown(1, 1),
        post::release(1),
        post::modify(1, 0),
        post::open_reserved(1, 0, 2),
        post::tl_connect(crate::common::CLASS, crate::common::CLASS),
    ];
    let mut guest = Guest::new(1);
    for message in messages {
        assert_eq!(guest.post(&message), Err(Ignored::Disconnected), "{message:?}");
    }
    assert_eq!(guest.take(), []);
    assert_eq!(guest.ask(&post::close_reserved(7, 1, 3)), [Reply::ReservedClosed(7)]);
    assert_eq!(guest.targets, [(1, 3)]);
    assert_eq!(guest.ask(&post::unload()), [Reply::Unloaded]);
}

// 25, kmcl 18
#[test]
fn test_contact_again_with_open_channels_is_answered_when_devices_let_go() {
    let mut guest = Guest::v5_3(3);
    let before = guest.core.channel_reports();
    guest.open(2, 10);
    guest.open(3, 11);
    guest.create(2, 12, 40);
    guest.on_close = Answer::Hold;
    guest.post(&post::contact(Version::V4_0.word(), 1)).unwrap();
    assert_eq!(guest.discards, 1, "no message of the old connection may follow");
    guest.closed();
    assert_eq!(guest.take(), []);
    guest.closed();
    assert_eq!(guest.take(), [accepted(Version::V4_0, 4)], "no word about the old connection");
    assert!(guest.core.gpadl_reports().is_empty() && guest.bound.is_empty());
    let replies = guest.ask(&post::request_offers());
    assert_eq!(replies.len(), 4);
    let names = |reports: Vec<vmbus_host::core::ChannelReport>| {
        Vec::from_iter(reports.into_iter().map(|report| (report.relid, report.instance)))
    };
    assert_eq!(names(guest.core.channel_reports()), names(before));
    guest.on_close = Answer::Accept;
    guest.open(2, 10);
}

// 25: only the last contact is answered, earlier ones are void.
#[test]
fn test_contact_while_the_last_one_waits_replaces_it() {
    let mut guest = Guest::open_held(1);
    guest.post(&post::unload()).unwrap();
    guest.post(&post::contact(Version::V5_0.word(), 1)).unwrap();
    guest.post(&post::contact(Version::V3_0.word(), 2)).unwrap();
    assert_eq!(guest.closing.len(), 1, "the device is asked once");
    guest.closed();
    assert_eq!(guest.take(), [accepted(Version::V3_0, 4)]);
    assert_eq!(guest.targets.last(), Some(&(2, 2)));
}

// 25
#[test]
fn test_contact_while_a_device_opens_waits_for_its_answer() {
    for device_accepts in [true, false] {
        let mut guest = Guest::v5_3(1);
        guest.create(1, 10, 8);
        (guest.on_open, guest.on_close) = (Answer::Hold, Answer::Hold);
        guest.post(&post::open(1, 10, 4, 0)).unwrap();
        guest.post(&post::contact(Version::V5_3.word(), 0)).unwrap();
        assert_eq!(guest.take(), []);
        guest.opened(device_accepts);
        if device_accepts {
            assert_eq!(guest.take(), []);
            guest.closed();
        }
        assert_eq!(guest.take(), [accepted(Version::V5_3, 4)], "and no OPEN_RESULT");
    }
}

// 28, kmcl 18
#[test]
fn test_contact_unload_is_answered_after_devices_and_views_are_gone() {
    let mut guest = Guest::v5_3(1);
    guest.open(1, 10);
    guest.create(1, 11, 4);
    guest.create(1, 12, 4);
    let view = guest.map(1, 11).unwrap();
    guest.post(&post::header(1, 13, 1, 808, &[0x01; 8])).unwrap();
    guest.on_close = Answer::Hold;
    guest.take();
    guest.post(&post::unload()).unwrap();
    guest.closed();
    assert_eq!(guest.take(), [], "a view is left");
    assert_eq!(guest.drop_view(view), [Reply::Unloaded]);
    let (signals, messages) = (guest.signals.len(), guest.targets.len());
    guest.offer(9);
    for message in [post::request_offers(), post::open(1, 10, 4, 0), post::teardown(1, 11)] {
        guest.post(&message).unwrap_err();
    }
    assert_eq!(
        (guest.signals.len(), guest.targets.len()),
        (signals, messages),
        "silence until contact"
    );
}

// 29
#[test]
fn test_contact_after_unload_with_another_vp_and_version_works() {
    let mut guest = Guest::v5_3(1);
    guest.open(1, 10);
    assert_eq!(guest.ask(&post::unload()), [Reply::Unloaded]);
    assert_eq!(guest.ask(&post::contact(Version::V3_0.word(), 2)), [accepted(Version::V3_0, 4)]);
    assert_eq!(guest.targets.last(), Some(&(2, 2)));
    assert_eq!(guest.ask(&post::request_offers()).len(), 2);
    guest.open(1, 10);
}

// 3.4: forget everything silently, messages that wait for a slot included.
#[test]
fn test_contact_machine_reset_is_silent_and_complete() {
    let mut guest = Guest::open_held(2);
    guest.core.reset();
    guest.settle();
    let before = guest.quiesced;
    guest.closed();
    assert_eq!((guest.take(), guest.quiesced), (vec![], before + 1));
    assert_eq!(guest.core.connection(), (ConnectionState::Disconnected, None));
    assert!(guest.bound.is_empty());
}

// 3.4: an UNLOAD_RESPONSE that no guest took must not meet the next one.
#[test]
fn test_contact_machine_reset_while_disconnected_discards_messages() {
    let mut guest = Guest::v5_3(1);
    assert_eq!(guest.ask(&post::unload()), [Reply::Unloaded]);
    let before = guest.discards;
    guest.core.reset();
    guest.settle();
    assert_eq!(guest.discards, before + 1);
}

// 34
#[test]
fn test_contact_with_reserved_header_word_is_accepted() {
    let mut guest = Guest::new(1);
    let mut message = post::contact(Version::V5_3.word(), 0);
    message[4..8].copy_from_slice(&U32::new(0xDEAD_BEEF).get().to_le_bytes());
    assert_eq!(guest.ask(&message), [accepted(Version::V5_3, 4)]);
}
