//! Invalid messages, and messages of other versions: checklist 31 to 34, 57, and section 4.6.

use vmbus_host::core::Ignored;
use vmbus_protocol::message::{Direction, MessageType};
use vmbus_protocol::offer::status;
use vmbus_protocol::{Guid, Version};

use crate::common::{Guest, Reply, VPS, post};

// 31
#[test]
fn test_message_of_no_guest_type_or_too_short_is_ignored() {
    let mut guest = Guest::v5_3(1);
    guest.open(1, 10);
    let of_host = MessageType::ALL.iter().filter(|kind| kind.direction() == Direction::ToGuest);
    let numbers = of_host.map(|kind| kind.number()).chain([0, 30, 200, u32::MAX]);
    for number in numbers {
        let mut message = vec![0; 240];
        message[..4].copy_from_slice(&number.to_le_bytes());
        assert!(matches!(guest.post(&message), Err(Ignored::Malformed(_))), "type {number}");
    }
    for len in 0..8 {
        assert!(matches!(guest.post(&vec![3; len]), Err(Ignored::Malformed(_))), "{len} bytes");
    }
    assert_eq!(guest.take(), []);
    assert_eq!(guest.held.len(), 1);
}

// 32
#[test]
fn test_message_truncated_by_one_byte_is_ignored() {
    for &kind in MessageType::ALL {
        let mut guest = Guest::v5_3(1);
        let message = post::zeroes(kind);
        let outcome = guest.post(&message[..message.len() - 1]);
        assert!(matches!(outcome, Err(Ignored::Malformed(_))), "{kind:?}");
        assert_eq!(guest.take(), []);
    }
}

// 33, 34
#[test]
fn test_message_padded_and_with_reserved_word_is_accepted() {
    let pad = |mut message: Vec<u8>| {
        message[4..8].fill(0xA5);
        message.resize(240, 0xA5);
        message
    };
    let mut guest = Guest::new(1);
    let steps: [(Vec<u8>, usize); 10] = [
        (post::contact(Version::V5_3.word(), 0), 1),
        (post::request_offers(), 2),
        (post::gpadl(1, 10, &[post::Range::pages(0, 8)]).remove(0), 1),
        (post::open(1, 10, 4, 0), 1),
        (post::modify(1, 1), 1),
        (post::tl_connect(Guid::default(), Guid::default()), 1),
        (post::close(1), 0),
        (post::teardown(1, 10), 1),
        (post::release(1), 0),
        (post::unload(), 1),
    ];
    for (message, answers) in steps {
        guest.post(&pad(message.clone())).unwrap_or_else(|why| panic!("{message:?}: {why:?}"));
        assert_eq!(guest.take().len(), answers, "{message:?}");
    }
}

#[test]
fn test_message_on_no_message_port_is_ignored() {
    let mut guest = Guest::v5_3(1);
    for port in [0, 2, 3, 0x2001, 0x80_0074, u32::MAX] {
        assert_eq!(guest.post_on(port, &post::unload()), Err(Ignored::Connection(port)));
    }
    assert!(guest.is_connected());
}

// 4: a message of a later version does not exist in an earlier one; 25, 27 and 29 belong to
// features that are never granted.
#[test]
fn test_message_of_a_later_version_is_ignored() {
    for version in Version::ALL {
        for kind in [
            MessageType::OpenReservedChannel,
            MessageType::CloseReservedChannel,
            MessageType::TlConnectRequest,
            MessageType::ModifyChannel,
            MessageType::ModifyConnection,
            MessageType::Pause,
            MessageType::Resume,
        ] {
            let mut guest = Guest::connected(1, version);
            let outcome = guest.post(&post::zeroes(kind));
            if version < kind.since() || kind.since() == Version::V6_0 {
                assert_eq!(outcome, Err(Ignored::Version(kind)), "{version}");
                assert_eq!(guest.take(), [], "{version} {kind:?}");
            } else {
                assert_eq!(outcome, Ok(()), "{version} {kind:?}");
            }
        }
    }
}

// 57, without a listener
#[test]
fn test_message_tl_connect_without_listener_is_refused_from_4_1_on() {
    let (endpoint, service) = (Guid::new(1, 2, 3, [4; 8]), Guid::new(5, 6, 7, [8; 8]));
    for version in Version::ALL {
        for len in [40, 56] {
            let mut guest = Guest::connected(0, version);
            let mut request = post::tl_connect(endpoint, service);
            request.resize(len, 0x11);
            let refusal = Reply::TlResult { endpoint, service, status: status::CONNECTION_REFUSED };
            let answers = usize::from(version >= Version::V4_1);
            assert_eq!(guest.ask(&request), vec![refusal; answers], "{version}");
        }
    }
}

// 4.6: refused, but always answered, where the guest asked for it.
#[test]
fn test_message_open_reserved_is_refused_at_its_target() {
    let mut guest = Guest::connected(1, Version::V4_0);
    let replies = guest.ask(&post::open_reserved(1, 3, 7));
    assert!(replies.len() == 1 && replies[0].is_open_failure_of(1, 0), "{replies:?}");
    assert_eq!(guest.ask(&post::close_reserved(1, 2, 15)), [Reply::ReservedClosed(1)]);
    assert_eq!(guest.targets[guest.targets.len() - 2..], [(3, 7), (2, 15)]);
    for (vp, sint) in [(VPS, 2), (0, 16), (u32::MAX, 2), (0, u32::MAX), (0, 258)] {
        assert_eq!(guest.post(&post::open_reserved(1, vp, sint)), Err(Ignored::Vp(vp)));
        assert_eq!(guest.post(&post::close_reserved(1, vp, sint)), Err(Ignored::Vp(vp)));
    }
    assert_eq!(guest.take(), []);
}
