//! The receive buffer and the send buffer.

use super::*;

#[test]
fn test_receive_buffer_before_ndis_config_is_an_error_from_version_2_on() {
    for version in NvspVersion::ALL {
        let mut session = Session::new(0);
        reply(&mut session, 1, &[version.number(), version.number()]);
        let result = session.handle(&message(101, &[9, 0xCAFE]), true);
        assert_eq!(result.is_ok(), version == NvspVersion::V1);
    }
}

/// Checklist 5.
#[test]
fn test_receive_buffer_of_wrong_shape_gets_status_2() {
    let mut session = configured(NvspVersion::V61, 1514);
    let wrong = [
        None,
        Some(Gpadl { ranges: 0, ..GOOD }),
        Some(Gpadl { ranges: 2, ..GOOD }),
        Some(Gpadl { byte_offset: 8, ..GOOD }),
        Some(Gpadl { length: 1807, ..GOOD }),
        Some(Gpadl { length: 1 << 32, ..GOOD }),
    ];
    for gpadl in wrong {
        handle(&mut session, 101, &[9, 0xCAFE]);
        let (message, geometry) = session.complete_receive_buffer(gpadl);
        assert_eq!(geometry, None);
        assert_eq!(to_words(message.bytes())[..2], [102, 2]);
        assert_eq!(message.bytes().len(), 40);
        assert_eq!(session.receive_buffer(), None);
    }
    handle(&mut session, 101, &[9, 0xCAFE]);
    assert!(session.complete_receive_buffer(Some(GOOD)).1.is_some());
}

/// Checklist 6.
#[test]
fn test_receive_buffer_complete_has_one_section_that_fits() {
    for version in NvspVersion::ALL {
        let mut session = configured(version, 9000);
        let request = BufferRequest { gpadl: 9, id: 0xCAFE, wants_completion: true };
        let outcome = handle(&mut session, 101, &[9, 0xCAFE]);
        assert_eq!(outcome.effect, Effect::MapReceiveBuffer(request));
        assert_eq!(outcome.completion, Completion::None);
        let (message, geometry) = session.complete_receive_buffer(Some(GOOD));
        let words = to_words(message.bytes());
        assert_eq!(words.len() * 4, version.message_size());
        assert_eq!(words[..4], [102, 1, 1, 0]);
        assert_eq!(words[4] * words[5], words[6]);
        assert!(words[6] <= 16 << 20 && words[4] >= 68);
        assert_eq!(session.receive_buffer(), Some((0xCAFE, geometry.unwrap())));
    }
}

/// Checklist 7.
#[test]
fn test_send_buffer_complete_has_section_size_6144() {
    let mut session = configured(NvspVersion::V5, 1514);
    for (length, accepted) in [(6143, false), (6144, true)] {
        let request = BufferRequest { gpadl: 10, id: 1, wants_completion: true };
        let outcome = handle(&mut session, 104, &[10, 1]);
        assert_eq!(outcome.effect, Effect::MapSendBuffer(request));
        let (message, _) = session.complete_send_buffer(Some(Gpadl { length, ..GOOD }));
        let expected = if accepted { [105, 1, 6144] } else { [105, 2, 0] };
        assert_eq!(to_words(message.bytes())[..3], expected);
        assert_eq!(message.bytes().len(), 28);
    }
    assert_eq!(session.send_buffer().unwrap().sections(), 1);
}

#[test]
fn test_buffers_repeated_are_errors_also_after_revoke() {
    let mut session = ready(NvspVersion::V61);
    for (send, revoke, name) in [(101, 103, "SEND_RECV_BUF"), (104, 106, "SEND_SEND_BUF")] {
        let again = message(send, &[11, 5]);
        assert_eq!(session.handle(&again, true), Err(ProtocolError::Repeated(name)));
        handle(&mut session, revoke, &[0]);
        assert_eq!(session.handle(&again, true), Err(ProtocolError::Repeated(name)));
    }
}

#[test]
fn test_buffer_completed_without_request_is_refused() {
    let mut session = Session::new(0);
    assert_eq!(session.complete_receive_buffer(Some(GOOD)).1, None);
    let mut session = ready(NvspVersion::V61);
    assert_eq!(session.complete_send_buffer(Some(GOOD)).1, None);
    assert!(session.send_buffer().is_some());
}

/// Checklist 8.
#[test]
fn test_revoke_without_request_gets_no_completion_and_ends_the_buffer() {
    let mut session = ready(NvspVersion::V61);
    let cases = [(103, Effect::ReceiveBufferRevoked), (106, Effect::SendBufferRevoked)];
    for (kind, effect) in cases {
        let outcome = session.handle(&message(kind, &[0xCAFE]), false).unwrap();
        assert_eq!(outcome, Outcome { completion: Completion::None, effect });
        let again = handle(&mut session, kind, &[0xCAFE]);
        assert_eq!(again, Outcome { completion: Completion::Empty, effect: Effect::None });
    }
    assert_eq!(session.receive_buffer(), None);
    assert_eq!(session.send_buffer(), None);
    assert_eq!(reply(&mut session, 107, &[0, u32::MAX, 0])[..2], [108, 2]);
}

#[test]
fn test_revoke_of_a_buffer_that_is_being_mapped_refuses_it() {
    let mut session = configured(NvspVersion::V61, 1514);
    assert_eq!(handle(&mut session, 103, &[0xCAFE]).effect, Effect::None);
    handle(&mut session, 101, &[9, 0xCAFE]);
    assert_eq!(handle(&mut session, 103, &[0xCAFE]).effect, Effect::None);
    assert_eq!(session.complete_receive_buffer(Some(GOOD)).1, None);
}

/// Checklist 9.
#[test]
fn test_rndis_packet_before_receive_buffer_is_an_error() {
    let mut session = configured(NvspVersion::V61, 1514);
    let packet = message(107, &[0, u32::MAX, 0]);
    assert_eq!(session.handle(&packet, true), Err(ProtocolError::NoReceiveBuffer));
    handle(&mut session, 101, &[9, 0xCAFE]);
    assert_eq!(session.handle(&packet, true), Err(ProtocolError::NoReceiveBuffer));
}

#[test]
fn test_rndis_packet_is_passed_on_with_its_section() {
    let mut session = ready(NvspVersion::V61);
    let section = Some(Section { index: 3, size: 700 });
    for (word, channel_type) in [(0, ChannelType::Data), (1, ChannelType::Control)] {
        let outcome = handle(&mut session, 107, &[word, 3, 700]);
        assert_eq!(outcome.effect, Effect::Rndis(RndisPacket { channel_type, section }));
        assert_eq!(outcome.completion, Completion::None);
    }
    let outcome = handle(&mut session, 107, &[0, u32::MAX, 0]);
    let packet = RndisPacket { channel_type: ChannelType::Data, section: None };
    assert_eq!(outcome.effect, Effect::Rndis(packet));
    assert_eq!(reply(&mut session, 107, &[2, u32::MAX, 0])[..2], [108, 2]);
}

/// Checklist 11.
#[test]
fn test_section_outside_the_send_buffer_is_refused() {
    let buffer = SendBuffer::new(3 * 6144 + 100).unwrap();
    assert_eq!((buffer.sections(), buffer.length()), (3, 18_532));
    let locate = |index, size| buffer.locate(Section { index, size });
    assert_eq!(locate(0, 6144), Some(0..6144));
    assert_eq!(locate(1, 12_388), Some(6144..18_532));
    assert_eq!(locate(3, 100), Some(18_432..18_532));
    for (index, size) in [(1, 12_389), (3, 101), (4, 0), (u32::MAX - 1, 1), (0, u32::MAX)] {
        assert_eq!(locate(index, size), None);
    }
    assert_eq!(locate(1, u32::MAX), None);
}
