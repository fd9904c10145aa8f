//! The published vectors of the Toeplitz hash, and lookups.

use super::super::FrameHeaders;
use super::*;

/// Destination, destination port, source, source port; hashes with and without ports.
const IPV4: [(&str, u16, &str, u16, u32, u32); 5] = [
    ("161.142.100.80", 1766, "66.9.149.187", 2794, 0x51CC_C178, 0x323E_8FC2),
    ("65.69.140.83", 4739, "199.92.111.2", 14_230, 0xC626_B0EA, 0xD718_262A),
    ("12.22.207.184", 38_024, "24.19.198.95", 12_898, 0x5C2B_394A, 0xD2D0_A5DE),
    ("209.142.163.6", 2217, "38.27.205.30", 48_228, 0xAFC7_327F, 0x8298_9176),
    ("202.188.127.2", 1303, "153.39.163.191", 44_251, 0x10E8_28A2, 0x5D18_09C5),
];

const IPV6: [(&str, u16, &str, u16, u32, u32); 3] = [
    ("3ffe:2501:200:3::1", 1766, "3ffe:2501:200:1fff::7", 2794, 0x4020_7D3D, 0x2CC1_8CD5),
    ("ff02::1", 4739, "3ffe:501:8::260:97ff:fe40:efab", 14_230, 0xDDE5_1BBF, 0x0F0C_461C),
    (
        "fe80::200:f8ff:fe21:67cf",
        38_024,
        "3ffe:1900:4545:3:200:f8ff:fe21:67cf",
        44_251,
        0x02D1_FEEF,
        0x4B61_E985,
    ),
];

const ALL: HashTypes = HashTypes(0xFF00 | 0x1_0000);

/// A frame with these addresses and ports, and `protocol` after the IP header.
fn frame(source: &str, destination: &str, ports: [u16; 2], protocol: u8) -> Vec<u8> {
    use std::net::IpAddr;
    let mut frame = vec![0; 12];
    match (source.parse().unwrap(), destination.parse().unwrap()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend([0x08, 0x00, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, protocol, 0, 0]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame.extend([0x86, 0xDD, 0x60, 0, 0, 0, 0, 20, protocol, 64]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        _ => unreachable!(),
    }
    ports.iter().for_each(|port| frame.extend(port.to_be_bytes()));
    frame.extend([0; 16]);
    frame
}

fn hash(types: HashTypes, frame: &[u8]) -> Option<u32> {
    FlowHash::of_frame(&ToeplitzKey::default(), types, frame).map(|hash| hash.0)
}

#[test]
fn test_toeplitz_published_vectors_match() {
    for (destination, destination_port, source, source_port, with_ports, without) in
        IPV4.into_iter().chain(IPV6)
    {
        for protocol in [6, 17] {
            let frame = frame(source, destination, [source_port, destination_port], protocol);
            assert_eq!(hash(ALL, &frame), Some(with_ports));
            let addresses = HashTypes(HashTypes::IPV4.0 | HashTypes::IPV6.0);
            assert_eq!(hash(addresses, &frame), Some(without));
        }
        let other = frame(source, destination, [source_port, destination_port], 1);
        assert_eq!(hash(ALL, &other), Some(without));
    }
}

#[test]
fn test_toeplitz_of_each_bit_is_a_window_of_the_key() {
    let key = ToeplitzKey::default();
    let bits: Vec<bool> = key
        .bytes()
        .iter()
        .flat_map(|byte| (0..8).map(move |bit| byte & (0x80 >> bit) != 0))
        .collect();
    for bit in 0..288 {
        let mut input = [0; 36];
        input[bit / 8] = 0x80 >> (bit % 8);
        let window = bits[bit..bit + 32].iter().fold(0, |word, bit| word << 1 | u32::from(*bit));
        assert_eq!(key.hash(&input), window);
    }
    assert_eq!(key.hash(&[]), 0);
    assert_eq!(key.hash(&[0xFF; 60]), key.hash(&[0xFF; 36]));
}

#[test]
fn test_hash_types_disabled_have_no_hash() {
    let tcp4 = frame("1.2.3.4", "5.6.7.8", [1, 2], 6);
    let udp6 = frame("fe80::1", "fe80::2", [1, 2], 17);
    assert_eq!(hash(HashTypes::default(), &tcp4), None);
    assert_eq!(hash(HashTypes::TCP_IPV6, &tcp4), None);
    assert_eq!(hash(HashTypes::TCP_IPV6, &udp6), None);
    assert_eq!(hash(HashTypes::IPV4, &udp6), None);
    assert!(hash(HashTypes::UDP_IPV6_EX, &udp6).is_some());
}

#[test]
fn test_hash_of_fragment_is_by_addresses() {
    let whole = frame("1.2.3.4", "5.6.7.8", [1, 2], 6);
    let by_addresses = hash(HashTypes::IPV4, &whole);
    for (offset, byte) in [(20, 0x20), (21, 1)] {
        let mut fragment = whole.clone();
        fragment[offset] = byte;
        assert_eq!(hash(ALL, &fragment), by_addresses);
        assert_eq!(hash(HashTypes::TCP_IPV4, &fragment), None);
    }
}

#[test]
fn test_hash_of_tagged_frame_is_that_of_the_untagged() {
    let plain = frame("1.2.3.4", "5.6.7.8", [1, 2], 6);
    let mut tagged = plain.clone();
    for _ in 0..2 {
        tagged.splice(12..12, [0x81, 0x00, 0x00, 0x07]);
        assert_eq!(hash(ALL, &tagged), hash(ALL, &plain));
    }
    tagged.splice(12..12, [0x81, 0x00, 0x00, 0x07]);
    assert_eq!(hash(ALL, &tagged), None);
}

#[test]
fn test_headers_of_each_short_frame_do_not_panic() {
    for frame in [frame("1.2.3.4", "5.6.7.8", [1, 2], 6), frame("fe80::1", "fe80::2", [1, 2], 17)] {
        let ip_header = if frame[14] == 0x45 { 20 } else { 40 };
        for length in 0..frame.len() {
            let is_known = length >= 14 + ip_header;
            assert_eq!(FrameHeaders::parse(&frame[..length]).is_some(), is_known);
            assert_eq!(hash(ALL, &frame[..length]).is_some(), is_known);
        }
    }
    let mut long_header = frame("1.2.3.4", "5.6.7.8", [1, 2], 6);
    long_header[14] = 0x4F;
    assert_eq!(FrameHeaders::parse(&long_header).unwrap().transport_offset, 74);
    assert_eq!(hash(ALL, &long_header), hash(HashTypes::IPV4, &long_header));
    for first in [0x44, 0x55, 0x65] {
        long_header[14] = first;
        assert_eq!(FrameHeaders::parse(&long_header), None);
    }
}

#[test]
fn test_table_shorter_than_128_is_repeated() {
    let table = RssTable::new([0, 1, 2].into_iter(), 3).unwrap();
    assert!((0..128).all(|at| table.entries()[at] == at as u16 % 3));
    assert_eq!(table.channel(Some(FlowHash(4))), 1);
    assert_eq!(table.channel(Some(FlowHash(128 + 5))), 2);
    assert_eq!(table.channel(Some(FlowHash(u32::MAX))), 127 % 3);
    assert_eq!(table.channel(None), 0);
}

/// Checklist 32.
#[test]
fn test_table_with_wrong_entries_is_none() {
    assert_eq!(RssTable::new(std::iter::empty(), 4), None);
    assert_eq!(RssTable::new([0; 129].into_iter(), 4), None);
    for entry in [4, 0x1_0000, u32::MAX] {
        assert_eq!(RssTable::new([0, entry].into_iter(), 4), None);
    }
    assert!(RssTable::new([3; 128].into_iter(), 4).is_some());
}
