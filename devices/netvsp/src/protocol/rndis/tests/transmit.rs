//! Frames of the guest.

use super::super::*;
use super::put;

const MAX_FRAME: u32 = 1514;

fn item(kind: u32, word: u32) -> Vec<u8> {
    [16, kind, 12, word].iter().flat_map(|word: &u32| word.to_le_bytes()).collect()
}

/// An RNDIS packet with per-packet information and a frame of `length` bytes.
fn packet(info: &[u8], length: u32) -> Vec<u8> {
    let data_offset = 44 + info.len();
    let mut bytes = vec![0; 44];
    let total = data_offset as u32 + length;
    for (at, word) in [(0, 1), (4, total), (8, data_offset as u32 - 8), (12, length)] {
        put(&mut bytes, at, word);
    }
    if !info.is_empty() {
        put(&mut bytes, 28, 36);
        put(&mut bytes, 32, info.len() as u32);
    }
    bytes.extend_from_slice(info);
    bytes.resize(total as usize, 0xAA);
    bytes
}

/// Parses all packets of a message.
fn parse_all(message: &[u8]) -> Result<Vec<TransmitFrame>, TransmitError> {
    let mut cursor = TransmitCursor::new(message.len() as u32, MAX_FRAME);
    let mut frames = Vec::new();
    while let Some(header) = cursor.next_header() {
        assert!(header.end - header.start <= 256);
        frames.push(cursor.parse_next(&message[header.start as usize..header.end as usize])?);
    }
    Ok(frames)
}

fn parse(message: &[u8]) -> Result<TransmitFrame, TransmitError> {
    parse_all(message).map(|frames| {
        assert_eq!(frames.len(), 1);
        frames[0]
    })
}

fn offload(kind: u32, word: u32, length: u32) -> Result<Offload, TransmitError> {
    parse(&packet(&item(kind, word), length)).map(|frame| frame.offload)
}

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

/// Checklist 15.
#[test]
fn test_checksum_request_of_each_protocol_is_recognised() {
    let request = |ip_version, transport, ip_header, transport_offset| {
        Ok(Offload::Checksum(ChecksumRequest {
            ip_version,
            transport,
            ip_header,
            transport_offset,
        }))
    };
    let (tcp, udp) = (Some(Transport::Tcp), Some(Transport::Udp));
    assert_eq!(offload(0, 0x0022_0005, 60), request(IpVersion::V4, tcp, false, Some(34)));
    assert_eq!(offload(0, 0x0022_0019, 60), request(IpVersion::V4, udp, true, Some(34)));
    assert_eq!(offload(0, 0x0036_0006, 60), request(IpVersion::V6, tcp, false, Some(54)));
    assert_eq!(offload(0, 0x0000_000A, 60), request(IpVersion::V6, udp, false, None));
    assert_eq!(offload(0, 0x0000_0011, 60), request(IpVersion::V4, None, true, None));
    for nothing in [0, 1, 2, 3, 0x0022_0001, 0x12] {
        assert_eq!(offload(0, nothing, 60), Ok(Offload::None));
    }
}

/// Checklist 15.
#[test]
fn test_checksum_request_with_bad_offset_is_refused() {
    for (word, offset) in
        [(5, 1), (5, 33), (5, 60), (5, 1023), (6, 34), (6, 53), (9, 33), (0xA, 60)]
    {
        let error = Err(TransmitError::TransportOffset(offset));
        assert_eq!(offload(0, word | offset << 16, 60), error);
    }
    assert!(offload(0, 5 | 59 << 16, 60).is_ok());
}

#[test]
fn test_checksum_request_contradictory_is_refused() {
    for word in [0b111, 0b100, 0b1101, 0b1_0000, 0b1_0011] {
        assert_eq!(offload(0, word, 60), Err(TransmitError::Checksum));
    }
}

/// Checklist 16.
#[test]
fn test_segmentation_request_is_recognised_up_to_the_longest_frame() {
    let word = |is_ipv6: u32, offset: u32, mss: u32| is_ipv6 << 31 | 1 << 30 | offset << 20 | mss;
    for length in [61_000, 65_535 + 18] {
        for (ipv6, ip_version, offset) in [(0, IpVersion::V4, 34), (1, IpVersion::V6, 54)] {
            let transport_offset = Some(offset as u16);
            let expected = Segmentation { ip_version, segment_size: 1460, transport_offset };
            let got = offload(2, word(ipv6, offset, 1460), length);
            assert_eq!(got, Ok(Offload::Segment(expected)));
        }
    }
    let too_long = 65_535 + 19;
    let error = Err(TransmitError::FrameLength(too_long));
    assert_eq!(offload(2, word(0, 34, 1460), too_long), error);
}

#[test]
fn test_segmentation_request_of_version_1_is_ipv4() {
    let expected =
        Segmentation { ip_version: IpVersion::V4, segment_size: 536, transport_offset: None };
    for word in [536, 1 << 31 | 536] {
        assert_eq!(offload(2, word, 9000), Ok(Offload::Segment(expected)));
    }
}

/// Checklist 16.
#[test]
fn test_segmentation_request_invalid_is_refused() {
    assert_eq!(offload(2, 1 << 30 | 34 << 20, 9000), Err(TransmitError::SegmentSize));
    for (flags, offset) in [(1 << 30, 33), (3 << 30, 34), (3 << 30, 53), (1 << 30, 100)] {
        let error = Err(TransmitError::TransportOffset(offset));
        assert_eq!(offload(2, flags | offset << 20 | 1460, 100), error);
    }
}

#[test]
fn test_segmentation_takes_precedence_over_checksum() {
    let mut info = item(2, 1 << 30 | 1460);
    info.extend(item(0, 0b111));
    let frame = parse(&packet(&info, 9000)).unwrap();
    assert!(matches!(frame.offload, Offload::Segment(_)));
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
