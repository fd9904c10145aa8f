//! Frames to the guest.

use super::super::*;
use super::word_at;
use crate::protocol::limits::FRAME_OFFSET;

const FULL: ReceivedFrame = ReceivedFrame {
    offset: FRAME_OFFSET,
    length: 1514,
    checksum: ReceiveChecksum {
        ip: Verdict::Valid,
        transport: Some((Transport::Tcp, Verdict::NotComputed)),
    },
    vlan: Some(Vlan { priority: 5, drop_eligible: true, id: 0x123 }),
    hash: Some(0x51CC_C178),
    fragment: Some(Fragment { is_first: true, is_last: false, id: 0xABCD }),
};

/// Reads the items of a header as the guest does.
fn items(header: &ReceiveHeader) -> Vec<(u32, u32)> {
    let bytes = header.bytes();
    let (offset, length) = (word_at(bytes, 28) as usize, word_at(bytes, 32) as usize);
    if length == 0 {
        assert_eq!((offset, bytes.len()), (0, 44));
        return Vec::new();
    }
    assert_eq!((offset, length), (36, bytes.len() - 44));
    bytes[offset + 8..]
        .chunks(16)
        .map(|item| {
            assert_eq!((word_at(item, 0), word_at(item, 8)), (16, 12));
            (word_at(item, 4), word_at(item, 12))
        })
        .collect()
}

fn checksum_word(ip: Verdict, transport: Option<(Transport, Verdict)>) -> Option<u32> {
    let checksum = ReceiveChecksum { ip, transport };
    let frame = ReceivedFrame { length: 60, checksum, ..ReceivedFrame::default() };
    items(&ReceiveHeader::new(&frame)).first().map(|(kind, word)| {
        assert_eq!(*kind, 0);
        *word
    })
}

/// Checklist 23.
#[test]
fn test_receive_header_without_information_has_offset_and_length_0() {
    let frame = ReceivedFrame { length: 14, ..ReceivedFrame::default() };
    let header = ReceiveHeader::new(&frame);
    assert!(items(&header).is_empty());
    let words: Vec<_> = (0..44).step_by(4).map(|at| word_at(header.bytes(), at)).collect();
    assert_eq!(words, [1, 270, 248, 14, 0, 0, 0, 0, 0, 0, 0]);
}

/// Checklist 23.
#[test]
fn test_receive_header_with_all_information_is_well_formed() {
    let header = ReceiveHeader::new(&FULL);
    assert_eq!(header.bytes().len(), ReceiveHeader::MAX);
    assert_eq!(word_at(header.bytes(), 4), FULL.message_length());
    let vlan = 5 | 8 | 0x123 << 4;
    let fragment = 0xABCD << 16 | 0b011 << 8 | 1;
    let expected = [(0, 0xA8), (6, vlan), (8, 0x51CC_C178), (0x8000_0001, fragment)];
    assert_eq!(items(&header), expected);
}

/// Checklist 20: message and trailer fit the sub-allocation.
#[test]
fn test_receive_message_of_longest_frame_fits_the_usable_bytes() {
    for max_frame in [1514, 1515, 9000, 9216] {
        let geometry =
            crate::protocol::sub_allocations::Geometry::new(16 << 20, max_frame).unwrap();
        assert!(ReceivedFrame { length: max_frame, ..FULL }.message_length() <= geometry.usable());
    }
}

/// Checklist 20: no answer reaches the last 36 bytes of a sub-allocation.
#[test]
fn test_control_message_of_any_length_fits_the_usable_bytes() {
    let smallest = crate::protocol::sub_allocations::Geometry::new(1 << 20, 1514).unwrap();
    assert_eq!(smallest.usable(), smallest.size() - 36);
    assert!(ControlMessage::MAX <= smallest.usable() as usize);
}

#[test]
fn test_receive_checksum_words_match_the_verdicts() {
    use Transport::{Tcp, Udp};
    use Verdict::{Failed, NotComputed, Unknown, Valid};
    let cases = [
        (Unknown, None, None),
        (Unknown, Some((Tcp, Unknown)), None),
        (Unknown, Some((Tcp, Failed)), Some(1)),
        (Unknown, Some((Udp, Failed)), Some(2)),
        (Failed, None, Some(4)),
        (Unknown, Some((Tcp, Valid)), Some(8)),
        (Unknown, Some((Udp, Valid)), Some(0x10)),
        (Valid, None, Some(0x20)),
        (Unknown, Some((Tcp, NotComputed)), Some(0x88)),
        (Unknown, Some((Udp, NotComputed)), Some(0x90)),
        (NotComputed, None, Some(0x120)),
    ];
    for (ip, transport, expected) in cases {
        assert_eq!(checksum_word(ip, transport), expected);
    }
}

#[test]
fn test_fragment_flags_mark_first_and_last() {
    for (is_first, is_last, flags) in [(true, true, 7), (false, false, 1), (false, true, 5)] {
        let fragment = Some(Fragment { is_first, is_last, id: 2 });
        let frame = ReceivedFrame { length: 60, fragment, ..ReceivedFrame::default() };
        let word = 2 << 16 | flags << 8 | 1;
        assert_eq!(items(&ReceiveHeader::new(&frame)), [(0x8000_0001, word)]);
    }
}

/// Checklist 17.
#[test]
fn test_vlan_tag_keeps_priority_and_id() {
    let vlan = Vlan { priority: 5, drop_eligible: true, id: 0x123 };
    assert_eq!(vlan.to_tag(), [0x81, 0x00, 0xB1, 0x23]);
    for priority in 0..8 {
        for drop_eligible in [false, true] {
            for id in [0, 1, 0xFFF] {
                let vlan = Vlan { priority, drop_eligible, id };
                assert_eq!(Vlan::from_tag(vlan.to_tag()), Some(vlan));
                assert_eq!(Vlan::from_word(vlan.to_word()), vlan);
            }
        }
    }
    assert_eq!(Vlan::from_tag([0x08, 0x00, 0xB1, 0x23]), None);
}
