//! The table of messages against vmbus-core section 4, and every message of a guest at the edges of
//! its size.

use vmbus_protocol::message::{Direction, GuestMessage, HEADER_SIZE, MessageType, ParseError};
use vmbus_protocol::{MessageBuffer, Version};

use Direction::{ToGuest, ToHost};
use Version::{V2_4, V4_0, V4_1, V5_3, V6_0};

/// Section 4, row by row. Our oldest version is 2.4, so older messages say 2.4.
const TABLE: [(u32, MessageType, Direction, usize, Version); 29] = [
    (1, MessageType::OfferChannel, ToGuest, 196, V2_4),
    (2, MessageType::RescindChannelOffer, ToGuest, 12, V2_4),
    (3, MessageType::RequestOffers, ToHost, 8, V2_4),
    (4, MessageType::AllOffersDelivered, ToGuest, 8, V2_4),
    (5, MessageType::OpenChannel, ToHost, 148, V2_4),
    (6, MessageType::OpenChannelResult, ToGuest, 20, V2_4),
    (7, MessageType::CloseChannel, ToHost, 12, V2_4),
    (8, MessageType::GpadlHeader, ToHost, 20, V2_4),
    (9, MessageType::GpadlBody, ToHost, 16, V2_4),
    (10, MessageType::GpadlCreated, ToGuest, 20, V2_4),
    (11, MessageType::GpadlTeardown, ToHost, 16, V2_4),
    (12, MessageType::GpadlTorndown, ToGuest, 12, V2_4),
    (13, MessageType::RelidReleased, ToHost, 12, V2_4),
    (14, MessageType::InitiateContact, ToHost, 40, V2_4),
    (15, MessageType::VersionResponse, ToGuest, 16, V2_4),
    (16, MessageType::Unload, ToHost, 8, V2_4),
    (17, MessageType::UnloadResponse, ToGuest, 8, V2_4),
    (18, MessageType::OpenReservedChannel, ToHost, 28, V4_0),
    (19, MessageType::CloseReservedChannel, ToHost, 20, V4_0),
    (20, MessageType::CloseReservedResponse, ToGuest, 12, V4_0),
    (21, MessageType::TlConnectRequest, ToHost, 40, V4_0),
    (22, MessageType::ModifyChannel, ToHost, 16, V4_1),
    (23, MessageType::TlConnectResult, ToGuest, 44, V4_1),
    (24, MessageType::ModifyChannelResponse, ToGuest, 16, V5_3),
    (25, MessageType::ModifyConnection, ToHost, 24, V6_0),
    (26, MessageType::ModifyConnectionResponse, ToGuest, 9, V6_0),
    (27, MessageType::Pause, ToHost, 8, V6_0),
    (28, MessageType::PauseResponse, ToGuest, 8, V6_0),
    (29, MessageType::Resume, ToHost, 8, V6_0),
];

/// A message of `kind`, its body a pattern, `len` bytes long.
fn message(kind: MessageType, reserved: u32, len: usize) -> Vec<u8> {
    let mut bytes = kind.number().to_le_bytes().to_vec();
    bytes.extend(reserved.to_le_bytes());
    bytes.extend((HEADER_SIZE..240).map(|offset| offset as u8));
    bytes.truncate(len);
    bytes
}

fn of_guests() -> impl Iterator<Item = MessageType> {
    MessageType::ALL.iter().copied().filter(|kind| kind.direction() == ToHost)
}

#[test]
fn test_messages_are_those_of_the_specification() {
    assert_eq!(MessageType::ALL.len(), TABLE.len());
    for (number, kind, direction, size, since) in TABLE {
        assert_eq!(MessageType::from_number(number), Some(kind));
        let found = (kind.number(), kind.direction(), kind.min_size(), kind.since());
        assert_eq!(found, (number, direction, size, since), "{kind:?}");
    }
    for number in [0, 30, 200, 0x8000_0001, u32::MAX] {
        assert_eq!(MessageType::from_number(number), None);
    }
}

// Checklist 32
#[test]
fn test_messages_shorter_than_their_type_are_refused_at_every_length() {
    for kind in of_guests() {
        for len in 0..kind.min_size() {
            let named = (len >= HEADER_SIZE).then_some(kind);
            let short = ParseError::Short { kind: named, len };
            assert_eq!(
                GuestMessage::parse(&message(kind, 0, len)),
                Err(short),
                "{kind:?}, {len} bytes"
            );
        }
    }
}

// Checklist 33, 34
#[test]
fn test_messages_padded_or_with_reserved_word_mean_the_same() {
    for kind in of_guests() {
        let exact = message(kind, 0, kind.min_size());
        let plain = GuestMessage::parse(&exact).unwrap();
        for (reserved, len) in [(u32::MAX, kind.min_size()), (0, 240), (u32::MAX, 240)] {
            let bytes = message(kind, reserved, len);
            let parsed = GuestMessage::parse(&bytes).unwrap();
            let same = match (parsed, plain) {
                // The rest of these is data: as much as came.
                (GuestMessage::GpadlHeader(a, data), GuestMessage::GpadlHeader(b, _)) => {
                    a == b && data.len() == len - kind.min_size()
                }
                (GuestMessage::GpadlBody(a, data), GuestMessage::GpadlBody(b, _)) => {
                    a == b && data.len() == len - kind.min_size()
                }
                (a, b) => a == b,
            };
            assert!(same, "{kind:?} with {reserved:#x} and {len} bytes: {parsed:?}");
        }
    }
}

// Checklist 31
#[test]
fn test_messages_of_hosts_are_refused_from_guests() {
    for kind in MessageType::ALL.iter().copied().filter(|kind| kind.direction() == ToGuest) {
        assert_eq!(
            GuestMessage::parse(&message(kind, 0, 240)),
            Err(ParseError::WrongDirection(kind))
        );
    }
    for number in [0_u32, 30, 200, u32::MAX] {
        let mut bytes = message(MessageType::Unload, 0, 240);
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        assert_eq!(GuestMessage::parse(&bytes), Err(ParseError::Unknown(number)));
    }
}

/// Offsets of section 4, by the bytes of a message whose byte n is n.
#[test]
fn test_messages_have_their_fields_where_the_specification_says() {
    let word = |offset: u8| u32::from_le_bytes([offset, offset + 1, offset + 2, offset + 3]);
    let bytes = |kind| message(kind, 0, 240);
    let at = |offset: usize, value: u32| assert_eq!(value, word(offset as u8), "at {offset}");

    let open = bytes(MessageType::OpenChannel);
    let Ok(GuestMessage::OpenChannel(body)) = GuestMessage::parse(&open) else { panic!() };
    at(8, body.relid.get());
    at(12, body.open_id.get());
    at(16, body.ring_gpadl.get());
    at(20, body.target_vp.get());
    at(24, body.downstream_page_offset.get());
    assert_eq!(body.user_data[..], open[28..148]);

    let header = bytes(MessageType::GpadlHeader);
    let Ok(GuestMessage::GpadlHeader(body, data)) = GuestMessage::parse(&header) else { panic!() };
    at(8, body.relid.get());
    at(12, body.gpadl.get());
    assert_eq!((body.range_buflen.get(), body.range_count.get()), (0x1110, 0x1312));
    assert_eq!(data, &header[20..]);

    let body = bytes(MessageType::GpadlBody);
    let Ok(GuestMessage::GpadlBody(gpadl, data)) = GuestMessage::parse(&body) else { panic!() };
    at(12, gpadl);
    assert_eq!(data, &body[16..]);

    let teardown = bytes(MessageType::GpadlTeardown);
    let Ok(GuestMessage::GpadlTeardown(body)) = GuestMessage::parse(&teardown) else { panic!() };
    at(8, body.relid.get());
    at(12, body.gpadl.get());

    let contact = bytes(MessageType::InitiateContact);
    let Ok(GuestMessage::InitiateContact(body)) = GuestMessage::parse(&contact) else { panic!() };
    at(8, body.version.get());
    at(12, body.target_vp.get());
    assert_eq!(body.target_info[..], contact[16..24]);
    assert_eq!(body.monitor_page1.get().to_le_bytes()[..], contact[24..32]);
    assert_eq!(body.monitor_page2.get().to_le_bytes()[..], contact[32..40]);

    let modify = bytes(MessageType::ModifyChannel);
    let Ok(GuestMessage::ModifyChannel(body)) = GuestMessage::parse(&modify) else { panic!() };
    at(8, body.relid.get());
    at(12, body.target_vp.get());

    let reserved = bytes(MessageType::OpenReservedChannel);
    let Ok(GuestMessage::OpenReservedChannel(body)) = GuestMessage::parse(&reserved) else {
        panic!()
    };
    at(8, body.relid.get());
    at(12, body.target_vp.get());
    at(16, body.target_sint.get());
    at(20, body.ring_gpadl.get());
    at(24, body.downstream_page_offset.get());

    for (kind, make) in [
        (MessageType::CloseChannel, GuestMessage::CloseChannel as fn(u32) -> GuestMessage<'static>),
        (MessageType::RelidReleased, GuestMessage::RelidReleased),
    ] {
        assert_eq!(GuestMessage::parse(&bytes(kind)), Ok(make(word(8))));
    }
}

#[test]
fn test_message_buffer_never_grows_past_the_largest_message() {
    let full = MessageBuffer::with_data(MessageType::GpadlBody, &[1_u8; 8], &[2; 500]);
    assert_eq!(full.as_bytes().len(), 240);
    let fits = MessageBuffer::with_data(MessageType::GpadlBody, &[1_u8; 8], &[2; 224]);
    assert_eq!(fits.as_bytes(), full.as_bytes());
    assert_eq!(MessageBuffer::bare(MessageType::Unload).as_bytes(), [16, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn test_versions_are_known_exactly() {
    for version in Version::ALL {
        assert_eq!(Version::from_word(version.word()), Some(version));
        for other in [version.word() + 0x100, version.word() | 0x8000_0000, version.word() ^ 0x40] {
            assert_eq!(Version::from_word(other), None, "{other:#x}");
        }
    }
    assert!(Version::ALL.is_sorted());
    for word in [0, 0x0000_000D, 0x0001_0001, 0x0005_0004, 0x0006_0001, 0x0009_0009] {
        assert_eq!(Version::from_word(word), None, "{word:#x}");
    }
}
