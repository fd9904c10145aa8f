//! Messages after initialisation.

use super::*;

/// Checklist 10.
#[test]
fn test_unsupported_messages_change_nothing() {
    let mut session = ready(NvspVersion::V61);
    let before = session.clone();
    let host_only = [0, 2, 102, 105, 108, 128, 132, 134];
    for kind in (109..=124).chain([126, 127, 130, 136, 999, u32::MAX]).chain(host_only) {
        for wanted in [true, false] {
            let outcome = session.handle(&message(kind, &[1, 1]), wanted).unwrap();
            assert_eq!(outcome.effect, Effect::None);
            let expected = if wanted { Completion::Empty } else { Completion::None };
            assert_eq!(outcome.completion, expected);
        }
    }
    assert_eq!(session, before);
}

#[test]
fn test_messages_newer_than_the_version_change_nothing() {
    let cases = [
        (125, NvspVersion::V2),
        (129, NvspVersion::V4),
        (133, NvspVersion::V5),
        (131, NvspVersion::V5),
    ];
    for (kind, since) in cases.into_iter().chain([(135, NvspVersion::V6)]) {
        for version in NvspVersion::ALL.into_iter().filter(|version| *version < since) {
            let mut session = ready(version);
            let before = session.clone();
            let outcome = handle(&mut session, kind, &[1, 1]);
            assert_eq!(outcome.completion, Completion::Empty);
            assert_eq!(outcome.effect, Effect::None);
            assert_eq!(session, before);
        }
    }
}

/// Checklist 10.
#[test]
fn test_packet_direct_and_oid_query_are_answered_as_unsupported() {
    let mut session = ready(NvspVersion::V6);
    assert_eq!(reply(&mut session, 135, &[1, 9, 9])[..], [135, 1, 2, 0, 0, 0, 0]);
    assert_eq!(reply(&mut session, 131, &[1, 9, 9])[..3], [132, 0xC000_00BB, 0]);
}

/// Checklist 42.
#[test]
fn test_switch_data_path_is_completed() {
    let mut session = ready(NvspVersion::V61);
    let paths = [(0, DataPath::Synthetic), (1, DataPath::VirtualFunction)];
    for (word, path) in paths {
        let outcome = handle(&mut session, 129, &[word]);
        assert_eq!(outcome.effect, Effect::SwitchDataPath(path));
        let message = HostMessage::data_path(NvspVersion::V61, word);
        assert_eq!(outcome.completion, Completion::Message(message));
    }
    let outcome = handle(&mut session, 129, &[2]);
    assert_eq!(outcome.effect, Effect::None);
    assert_ne!(outcome.completion, Completion::None);
}

/// Checklist 37.
#[test]
fn test_subchannels_up_to_the_limit_are_granted() {
    for count in [0, 1, 7] {
        let mut session = ready(NvspVersion::V5);
        let outcome = handle(&mut session, 133, &[1, count]);
        assert_eq!(outcome.effect, Effect::OfferSubchannels(count as u16));
        let reply = HostMessage::subchannels(NvspVersion::V5, Some(count as u16));
        assert_eq!(outcome.completion, Completion::Message(reply));
        assert_eq!(to_words(reply.bytes())[..3], [133, 1, count]);
        assert_eq!(session.subchannels(), count as u16);
    }
}

/// Checklist 37.
#[test]
fn test_subchannels_refused_get_status_2_and_none() {
    let refused = [133, 2, 0];
    for (operation, count) in [(2, 1), (0, 1), (1, 8), (1, 0x1_0001), (1, u32::MAX)] {
        let mut session = ready(NvspVersion::V61);
        assert_eq!(reply(&mut session, 133, &[operation, count])[..3], refused);
        assert_eq!(session.subchannels(), 0);
    }
    let mut session = ready(NvspVersion::V61);
    handle(&mut session, 133, &[1, 3]);
    assert_eq!(reply(&mut session, 133, &[1, 2])[..3], refused);
    assert_eq!(session.subchannels(), 3);
    let mut session = configured(NvspVersion::V61, 1514);
    assert_eq!(reply(&mut session, 133, &[1, 2])[..3], refused);
}

/// Checklist 35.
#[test]
fn test_subchannel_passes_on_frames_only() {
    let handle = |kind, words: &[u32]| handle_subchannel(&message(kind, words));
    let packet = RndisPacket { channel_type: ChannelType::Data, section: None };
    assert_eq!(handle(107, &[0, u32::MAX, 0]), Ok(Some(packet)));
    for channel_type in [1, 2] {
        assert_eq!(handle(107, &[channel_type, u32::MAX, 0]), Ok(None));
    }
    for kind in [1, 101, 125, 133, 999] {
        assert_eq!(handle(kind, &[]), Err(ProtocolError::OnSubchannel(kind)));
    }
    assert!(handle_subchannel(&[]).is_err());
}

/// Checklist 38.
#[test]
fn test_send_table_message_has_length_104_count_16_offset_40() {
    let table = std::array::from_fn(|entry| entry as u16 % 3);
    let message = SendTableMessage::new(NvspVersion::V5, &table).unwrap();
    let words = to_words(message.bytes());
    assert_eq!(message.bytes().len(), 104);
    assert_eq!(words[..3], [134, 16, 40]);
    assert!(words[3..10].iter().all(|word| *word == 0));
    assert!(words[10..].iter().enumerate().all(|(entry, word)| *word == entry as u32 % 3));
    assert_eq!(SendTableMessage::new(NvspVersion::V4, &table), None);
}

/// Checklist 2.
#[test]
fn test_messages_of_the_host_have_full_size() {
    for version in NvspVersion::ALL {
        let messages = [
            Some(HostMessage::rndis_packet(version, ChannelType::Control)),
            Some(HostMessage::rndis_complete(version, NvspStatus::InvalidRndisPacket)),
            HostMessage::vf_association(version, true, 7),
        ];
        for message in messages.into_iter().flatten() {
            assert_eq!(message.bytes().len(), version.message_size());
        }
        assert_eq!(messages[2].is_some(), version >= NvspVersion::V4);
        assert_eq!(to_words(messages[0].unwrap().bytes())[..4], [107, 1, u32::MAX, 0]);
        assert_eq!(to_words(messages[1].unwrap().bytes())[..2], [108, 5]);
    }
    let association = HostMessage::vf_association(NvspVersion::V5, true, 7).unwrap();
    assert_eq!(to_words(association.bytes())[..3], [128, 1, 7]);
}

/// Checklist 22.
#[test]
fn test_transfer_page_packet_with_most_ranges_is_short_enough_for_linux() {
    use crate::protocol::limits::MAX_PACKET_TO_GUEST;
    let ranges = NdisVersion::V6_30.max_ranges();
    assert_eq!([NdisVersion::V6_0.max_ranges(), ranges], [375; 2]);
    assert_eq!(NdisVersion::V5_0.max_ranges(), 8);
    assert!(24 + 8 * ranges + HostMessage::MAX <= MAX_PACKET_TO_GUEST);
}
