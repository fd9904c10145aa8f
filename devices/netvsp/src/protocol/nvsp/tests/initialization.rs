//! INIT, NDIS_CONFIG, NDIS_VERSION and malformed messages.

use super::*;

/// Checklist 1 and 2.
#[test]
fn test_init_of_each_known_version_succeeds_with_full_size_message() {
    for version in NvspVersion::ALL {
        let mut session = Session::new(0);
        let word = version.number();
        let words = reply(&mut session, 1, &[word, word]);
        let negotiated = if version == NvspVersion::V1 { 2 } else { u32::MAX };
        assert_eq!(words[..4], [2, negotiated, 34, 1]);
        assert!(words[4..].iter().all(|word| *word == 0));
        assert_eq!(words.len() * 4, if version == NvspVersion::V61 { 40 } else { 28 });
        assert_eq!(session.version(), Some(version));
    }
}

/// Checklist 1.
#[test]
fn test_init_of_unknown_version_is_refused_and_retry_accepted() {
    let mut session = Session::new(0);
    for (min, max) in [(0x7_0000, 0x7_0000), (0, 0), (3, 3), (2, 0x6_0001), (0x5_0000, 2)] {
        let words = reply(&mut session, 1, &[min, max]);
        assert_eq!(words[0], 2);
        assert_ne!(words[3], 1);
        assert_eq!(words.len(), 7);
        assert_eq!(session.version(), None);
    }
    assert_eq!(reply(&mut session, 1, &[2, 2])[3], 1);
}

/// Checklist 1.
#[test]
fn test_init_repeated_after_success_is_an_error() {
    let mut session = configured(NvspVersion::V5, 1514);
    let again = message(1, &[0x6_0000, 0x6_0000]);
    assert_eq!(session.handle(&again, true), Err(ProtocolError::Repeated("INIT")));
    assert_eq!(session.version(), Some(NvspVersion::V5));
}

#[test]
fn test_message_before_init_is_an_error() {
    for kind in [0, 2, 100, 101, 103, 104, 106, 107, 125, 129, 131, 133, 135, 999] {
        let mut session = Session::new(0);
        let result = session.handle(&message(kind, &[1, 2, 3]), true);
        assert_eq!(result, Err(ProtocolError::NotInitialized(kind)));
    }
}

#[test]
fn test_message_cut_short_is_an_error_at_each_length() {
    let needed = [
        (1, 12),
        (100, 12),
        (101, 10),
        (103, 6),
        (104, 10),
        (106, 6),
        (107, 16),
        (125, 20),
        (129, 8),
        (131, 4),
        (133, 12),
        (135, 8),
        (999, 4),
    ];
    for (kind, needed) in needed {
        let bytes = message(kind, &[]);
        for length in 0..40 {
            let result = GuestMessage::parse(&bytes[..length]);
            assert_eq!(result.is_ok(), length >= needed, "{kind} {length}");
            if let Err(error) = result {
                assert_eq!(error, TooShort { kind: (length >= 4).then_some(kind), length });
            }
        }
        assert_eq!(GuestMessage::parse(&bytes).unwrap().kind(), kind);
    }
}

/// Checklist 3.
#[test]
fn test_ndis_messages_get_an_empty_completion_only_on_request() {
    for (kind, words) in [(125, &[1514, 0, 0, 0][..]), (100, &[6, 30])] {
        for wanted in [true, false] {
            let mut session = Session::new(0);
            reply(&mut session, 1, &[0x6_0001, 0x6_0001]);
            let outcome = session.handle(&message(kind, words), wanted).unwrap();
            let expected = if wanted { Completion::Empty } else { Completion::None };
            assert_eq!(outcome, Outcome { completion: expected, effect: Effect::None });
        }
    }
}

#[test]
fn test_ndis_messages_repeated_are_errors() {
    let mut session = configured(NvspVersion::V61, 1514);
    let config = session.handle(&message(125, &[9000]), true);
    assert_eq!(config, Err(ProtocolError::Repeated("NDIS_CONFIG")));
    handle(&mut session, 100, &[6, 30]);
    let version = session.handle(&message(100, &[6, 1]), true);
    assert_eq!(version, Err(ProtocolError::Repeated("NDIS_VERSION")));
    assert_eq!(session.ndis_version(), NdisVersion::V6_30);
    assert_eq!(session.max_frame(), 1514);
}

/// Checklist 4.
#[test]
fn test_ndis_config_frame_length_out_of_range_gives_1514() {
    let cases = [(100, 1514), (1513, 1514), (1514, 1514), (9216, 9216), (9217, 1514)];
    for (requested, applied) in cases.into_iter().chain([(65_535, 1514), (u32::MAX, 1514)]) {
        assert_eq!(configured(NvspVersion::V61, requested).max_frame(), applied);
    }
    assert_eq!(configured(NvspVersion::V1, 9000).max_frame(), 1514);
}

#[test]
fn test_ndis_config_capabilities_are_limited_to_the_version() {
    let bits = |version| configured(version, 1514).capabilities();
    assert!(bits(NvspVersion::V61).contains(Capabilities::RECEIVE_COALESCING));
    assert!(!bits(NvspVersion::V6).contains(Capabilities::RECEIVE_COALESCING));
    assert!(bits(NvspVersion::V5).contains(Capabilities::TEAMING));
    assert!(!bits(NvspVersion::V4).contains(Capabilities::TEAMING));
    assert!(bits(NvspVersion::V4).contains(Capabilities::SRIOV));
    assert!(!bits(NvspVersion::V2).contains(Capabilities::SRIOV));
    assert!(bits(NvspVersion::V2).contains(Capabilities::VLAN));
}

#[test]
fn test_ndis_version_absent_is_5_0() {
    assert_eq!(configured(NvspVersion::V61, 1514).ndis_version(), NdisVersion::V5_0);
}
