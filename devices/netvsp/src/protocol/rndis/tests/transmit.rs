//! Frames of the guest.

use super::super::*;
use super::{MAX_FRAME, item, packet, parse, parse_all, put};

#[test]
fn test_transmit_plain_frame_is_located() {
    let frame = parse(&packet(&[], 60)).unwrap();
    let expected = TransmitFrame { offset: 44, length: 60, offload: Offload::None, vlan: None };
    assert_eq!(frame, expected);
}

/// Checklist 11.
#[test]
fn test_transmit_message_of_8_packets_yields_8_frames() {
    let mut message = Vec::new();
    let mut expected = Vec::new();
    for number in 0..8 {
        let mut packet = packet(&item(6, number << 4), 60 + number);
        let padded = packet.len().next_multiple_of(8);
        packet.resize(padded, 0);
        put(&mut packet, 4, padded as u32);
        expected.push((message.len() as u32 + 60, 60 + number, number as u16));
        message.extend(packet);
    }
    let frames = parse_all(&message).unwrap();
    let got: Vec<_> =
        frames.iter().map(|frame| (frame.offset, frame.length, frame.vlan.unwrap().id)).collect();
    assert_eq!(got, expected);
    message.extend(packet(&[], 60));
    assert_eq!(parse_all(&message), Err(TransmitError::TooManyPackets));
}

#[test]
fn test_transmit_padding_after_last_packet_is_ignored() {
    for padding in 0..8 {
        let mut message = packet(&[], 60);
        message.resize(message.len() + padding, 0);
        assert!(parse(&message).is_ok());
    }
    let mut message = packet(&[], 60);
    message.resize(message.len() + 8, 0);
    assert_eq!(parse_all(&message), Err(TransmitError::NotAPacket(0)));
}

#[test]
fn test_transmit_cursor_is_empty_after_an_error() {
    let mut message = packet(&[], 60);
    message.extend(packet(&[], 60));
    put(&mut message, 0, 2);
    let mut cursor = TransmitCursor::new(message.len() as u32, MAX_FRAME);
    let header = cursor.next_header().unwrap();
    assert_eq!(header, 0..208);
    assert_eq!(cursor.parse_next(&message), Err(TransmitError::NotAPacket(2)));
    assert_eq!(cursor.next_header(), None);
}

/// Checklist 13.
#[test]
fn test_transmit_message_of_each_short_length_is_refused() {
    let good = packet(&[], 60);
    assert_eq!(parse_all(&[]), Err(TransmitError::TooShort(0)));
    for length in 0..good.len() {
        assert!(parse_all(&good[..length]).is_err(), "{length}");
    }
}

/// Checklist 13.
#[test]
fn test_transmit_length_field_out_of_range_is_refused() {
    for length in [0, 7, 8, 43, 105, u32::MAX] {
        let mut message = packet(&[], 60);
        put(&mut message, 4, length);
        assert_eq!(parse(&message), Err(TransmitError::Length { length, remaining: 104 }));
    }
}

/// Checklist 13.
#[test]
fn test_transmit_frame_outside_of_packet_is_refused() {
    let cases = [(37, 60), (36, 61), (u32::MAX, 60), (u32::MAX - 8, 60), (36, u32::MAX)];
    for (offset, length) in cases.into_iter().chain([(u32::MAX, u32::MAX)]) {
        let mut message = packet(&[], 60);
        put(&mut message, 8, offset);
        put(&mut message, 12, length);
        assert_eq!(parse(&message), Err(TransmitError::FrameRange), "{offset} {length}");
    }
}

#[test]
fn test_transmit_out_of_band_data_is_refused() {
    for offset in [16, 20, 24] {
        let mut message = packet(&[], 60);
        put(&mut message, offset, 1);
        assert_eq!(parse(&message), Err(TransmitError::OutOfBand));
    }
}

#[test]
fn test_transmit_other_message_types_are_refused() {
    for kind in [0, 2, 3, 4, 5, 7, 8, 0x8000_0002, u32::MAX] {
        let mut message = packet(&[], 60);
        put(&mut message, 0, kind);
        assert_eq!(parse(&message), Err(TransmitError::NotAPacket(kind)));
        assert_eq!(parse_all(&message[..12]), Err(TransmitError::NotAPacket(kind)));
    }
}

/// Checklist 14.
#[test]
fn test_packet_info_malformed_is_refused() {
    // Size, kind, offset, payload: of an item that the area of 16 bytes ends with.
    let malformed = [
        [0, 9, 12],
        [3, 9, 12],
        [8, 9, 12],
        [13, 9, 12],
        [20, 9, 12],
        [u32::MAX, 9, 12],
        [16, 9, 17],
        [16, 9, 8],
        [16, 9, u32::MAX],
        [12, 0, 12],
        [16, 0, 16],
        [16, 2, 13],
        [16, 6, 14],
    ];
    for [size, kind, offset] in malformed {
        let mut info = item(kind, 0);
        put(&mut info, 0, size);
        put(&mut info, 8, offset);
        assert_eq!(parse(&packet(&info, 60)), Err(TransmitError::PacketInfo), "{size} {offset}");
    }
}

/// Checklist 14.
#[test]
fn test_packet_info_of_unknown_kind_is_ignored() {
    let mut info = item(9, 1);
    info.extend(item(8, 0x1234));
    info.extend([12, 11, 12].iter().flat_map(|word: &u32| word.to_le_bytes()));
    info.extend(item(0x8000_0001, 2));
    info.extend(item(6, 0x1238 | 5));
    let frame = parse(&packet(&info, 60)).unwrap();
    assert_eq!(frame.offload, Offload::None);
    assert_eq!(frame.vlan, Some(Vlan { priority: 5, drop_eligible: true, id: 0x123 }));
}

#[test]
fn test_packet_info_area_out_of_place_is_refused() {
    let message = packet(&item(6, 0), 60);
    for (offset, length) in
        [(0, 16), (32, 16), (37, 16), (u32::MAX, 16), (36, u32::MAX), (36, 77), (110, 16)]
    {
        let mut message = message.clone();
        put(&mut message, 28, offset);
        put(&mut message, 32, length);
        assert_eq!(parse(&message), Err(TransmitError::PacketInfo), "{offset} {length}");
    }
    let mut message = message;
    put(&mut message, 32, 0);
    put(&mut message, 28, u32::MAX);
    assert_eq!(parse(&message).unwrap().vlan, None);
}

#[test]
fn test_packet_info_beyond_256_bytes_is_refused() {
    let items = |count| (0..count).flat_map(|_| item(9, 0)).collect::<Vec<_>>();
    assert!(parse(&packet(&items(13), 60)).is_ok());
    assert_eq!(parse(&packet(&items(14), 60)), Err(TransmitError::PacketInfo));
}

/// Checklist 19.
#[test]
fn test_frame_length_out_of_range_is_refused() {
    // A tag in the frame may add 4 bytes.
    for (length, is_good) in [(0, false), (13, false), (14, true), (1514, true), (1518, true)] {
        assert_eq!(parse(&packet(&[], length)).is_ok(), is_good, "{length}");
    }
    for info in [vec![], item(0, 0x0022_0005)] {
        assert_eq!(parse(&packet(&info, 1519)), Err(TransmitError::FrameLength(1519)));
    }
}
