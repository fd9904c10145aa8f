//! Offload requests of the guest.

use super::super::*;
use super::{item, packet, parse};

fn offload(kind: u32, word: u32, length: u32) -> Result<Offload, TransmitError> {
    parse(&packet(&item(kind, word), length)).map(|frame| frame.offload)
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

/// Checklist 15 and 16.
#[test]
fn test_offload_location_follows_from_the_headers() {
    let ipv4 = |protocol| {
        let mut frame = vec![0; 54];
        (frame[12], frame[14], frame[23]) = (0x08, 0x45, protocol);
        frame
    };
    let ipv6 = |next| {
        let mut frame = vec![0; 74];
        (frame[12], frame[13], frame[14], frame[20]) = (0x86, 0xDD, 0x60, next);
        frame
    };
    let locate = |ip_version, transport_offset, frame: &[u8]| {
        Segmentation { ip_version, segment_size: 1460, transport_offset }.locate(frame)
    };
    assert_eq!(locate(IpVersion::V4, None, &ipv4(6)), Some(34));
    assert_eq!(locate(IpVersion::V4, Some(34), &ipv4(6)), Some(34));
    assert_eq!(locate(IpVersion::V6, None, &ipv6(6)), Some(54));
    assert_eq!(locate(IpVersion::V6, Some(62), &ipv6(0)), Some(62));
    for (ip_version, offset, frame) in [
        (IpVersion::V4, Some(38), ipv4(6)),
        (IpVersion::V4, None, ipv4(17)),
        (IpVersion::V4, Some(34), ipv4(17)),
        (IpVersion::V4, Some(34), ipv4(1)),
        (IpVersion::V6, None, ipv4(6)),
        (IpVersion::V6, None, ipv6(0)),
        (IpVersion::V6, Some(54), ipv6(0)),
        (IpVersion::V4, None, vec![0; 64]),
        (IpVersion::V4, None, Vec::new()),
    ] {
        assert_eq!(locate(ip_version, offset, &frame), None);
    }
    let request = ChecksumRequest {
        ip_version: IpVersion::V4,
        transport: Some(Transport::Udp),
        ip_header: true,
        transport_offset: None,
    };
    assert_eq!(request.locate(&ipv4(17)), Some(34));
    assert_eq!(request.locate(&ipv4(6)), None);
    assert_eq!(ChecksumRequest { transport: None, ..request }.locate(&ipv4(17)), None);
}
