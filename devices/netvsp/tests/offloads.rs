//! Receive offloads: checksums that the host knows, and coalesced segments.

mod guest;

use std::sync::Arc;

use guest::*;
use synthvm_net::Switch;
use synthvm_net::software::checksum::{finish, sum};

/// Kinds of per-packet information.
const CHECKSUM: u32 = 0;
const VLAN: u32 = 6;
const FRAGMENT: u32 = 0x8000_0001;

/// Two guests on one switch. The second one accepts coalesced segments.
fn neighbours(channels: u16) -> (NetGuest, NetGuest) {
    let switch = Switch::new(2).unwrap();
    let open = |port| {
        let port = Arc::new(switch.port(port).unwrap());
        let mut guest = NetGuest::open_with_channels(port, channels);
        guest.capabilities |= 1 << 7;
        guest.initialise();
        guest.set(0x0001_010E, &0x20_u32.to_le_bytes());
        guest
    };
    (open(0), open(1))
}

/// An IPv4 frame with a TCP or UDP header, whose checksum is the sum of the pseudo-header.
fn segment(protocol: u8, payload: usize) -> Vec<u8> {
    let header = if protocol == 6 { 20 } else { 8 };
    let mut bytes = frame(0, 34 + header + payload);
    bytes[12..14].copy_from_slice(&[8, 0]);
    let total = (20 + header + payload) as u16;
    let [high, low] = total.to_be_bytes();
    bytes[14..34].copy_from_slice(&[
        0x45, 0, high, low, 0, 1, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ]);
    let ip = finish(sum(0, &bytes[14..34]));
    bytes[24..26].copy_from_slice(&ip.to_be_bytes());
    bytes[34..38].copy_from_slice(&[0, 80, 4, 0]);
    if protocol == 6 {
        bytes[46] = 0x50;
        bytes[47] = 0x10;
    } else {
        bytes[38..40].copy_from_slice(&(total - 20).to_be_bytes());
    }
    let field = if protocol == 6 { 50 } else { 40 };
    let pseudo = u64::from(protocol) + u64::from(total - 20);
    let seed = !finish(sum(pseudo, &bytes[26..34]));
    bytes[field..field + 2].copy_from_slice(&seed.to_be_bytes());
    bytes
}

/// Returns the sum of the transport's data and pseudo-header: 0 with a right checksum.
fn residue(bytes: &[u8]) -> u16 {
    let pseudo = u64::from(bytes[23]) + bytes.len() as u64 - 34;
    finish(sum(pseudo, &[&bytes[26..34], &bytes[34..]].concat()))
}

#[test]
fn test_checksum_left_to_the_receiver_is_reported_or_filled_in() {
    for (protocol, request, reported) in [(6, 1 << 2, 0x88), (17, 1 << 3, 0x90)] {
        let (mut guest, mut other) = neighbours(1);
        let bytes = segment(protocol, 101);
        let message = packet(&bytes, &[(CHECKSUM, 1 | request | 34 << 16)]);
        assert_eq!(guest.send_in_section(&message), 1);
        // As it was sent, with the word that its data is right.
        let expected = Frame { bytes: bytes.clone(), info: vec![(CHECKSUM, reported)] };
        assert_eq!(other.receive(), [expected]);
        // This frame waits while the guest turns the offload off: the card fills it in.
        assert_eq!(guest.send_in_section(&message), 1);
        other.set(0x0001_010E, &0_u32.to_le_bytes());
        other.take_early();
        assert_eq!(guest.send_in_section(&message), 1);
        other.set_offloads(2, 1);
        other.set(0x0001_010E, &0x20_u32.to_le_bytes());
        // And this one the switch.
        assert_eq!(guest.send_in_section(&message), 1);
        let mut received = Vec::new();
        while received.len() < 2 {
            received.extend(other.receive());
        }
        for frame in received {
            assert_eq!((residue(&frame.bytes), frame.info.len()), (0, 0), "{protocol}");
            assert_eq!(frame.bytes[54..], bytes[54..]);
        }
    }
}

/// Returns the frames of a packet, with the parts of a coalesced one joined.
fn joined(guest: &NetGuest, packet: &vmbus_loopback::bare::HostPacket) -> Vec<Frame> {
    let mut frames: Vec<Frame> = Vec::new();
    let mut open: Option<(u32, Frame)> = None;
    for mut part in guest.frames(packet) {
        let at = part.info.iter().position(|(kind, _)| *kind == FRAGMENT);
        let Some(word) = at.map(|at| part.info.remove(at).1) else {
            assert!(open.is_none());
            frames.push(part);
            continue;
        };
        assert_eq!(word & 0xFF, 1, "version");
        let (is_first, is_last, id) = (word >> 9 & 1, word >> 10 & 1, word >> 16);
        assert_eq!(word >> 8 & 1, 1);
        match &mut open {
            None => {
                assert_eq!((is_first, is_last), (1, 0));
                open = Some((id, part));
            }
            Some((of, whole)) => {
                assert_eq!((is_first, id, part.info.len()), (0, *of, 0));
                whole.bytes.extend(part.bytes);
            }
        }
        if is_last == 1 {
            frames.push(open.take().unwrap().1);
        }
    }
    assert!(open.is_none(), "a coalesced frame ends with its packet");
    frames
}

#[test]
fn test_large_segment_of_a_neighbour_arrives_whole_in_parts() {
    let (mut guest, mut other) = neighbours(2);
    other.set_offloads(4, 2);
    let large = (2, 1000 | 34 << 20 | 1 << 30);
    let tag = 3 | 77 << 4;
    for payload in [900, 1500, 5000, 30_000, 60_000] {
        for info in [vec![large], vec![(VLAN, tag), large]] {
            let bytes = segment(6, payload);
            let message = packet(&bytes, &info);
            assert_eq!(guest.send_large(&message), 1);
            let packet = other.channel.receive();
            let mut frames = joined(&other, &packet);
            other.complete(&packet);
            assert_eq!(frames.len(), 1);
            let frame = frames.remove(0);
            assert!(frame.bytes[54..] == bytes[54..], "{payload} bytes");
            assert_eq!(frame.bytes[..50], bytes[..50], "lengths and checksum of IP");
            let mut expected = vec![(CHECKSUM, 0x88)];
            expected.extend((info.len() == 2).then_some((VLAN, tag)));
            assert_eq!(frame.info, expected);
        }
    }
}

#[test]
fn test_guest_that_does_not_coalesce_gets_segments() {
    let (mut guest, mut other) = neighbours(1);
    let large = (2, 1000 | 34 << 20 | 1 << 30);
    let bytes = segment(6, 5000);
    for coalescing in [1, 2, 1] {
        other.set_offloads(4, coalescing);
        assert_eq!(guest.send_large(&packet(&bytes, &[large])), 1);
        let mut payload = Vec::new();
        let mut count = 0;
        while payload.len() < 5000 {
            let packet = other.channel.receive();
            for frame in joined(&other, &packet) {
                payload.extend_from_slice(&frame.bytes[54..]);
                count += 1;
            }
            other.complete(&packet);
        }
        assert!(payload == bytes[54..]);
        assert_eq!(count, if coalescing == 2 { 1 } else { 5 });
    }
}

/// The guest holds almost all of its buffer: a large segment that might not fit waits.
#[test]
fn test_coalesced_segments_without_space_stay_with_the_backend_until_there_is_some() {
    let (mut guest, mut other) = neighbours(1);
    other.set_offloads(4, 2);
    let large = (2, 1000 | 34 << 20 | 1 << 30);
    let message = packet(&segment(6, 60_000), &[large]);
    let mut held = Vec::new();
    for _ in 0..6 {
        assert_eq!(guest.send_large(&message), 1);
        other.inline.serve();
        held.extend(other.take(0));
    }
    // 128 sub-allocations, of which a segment takes 39, and the longest would take 43.
    assert_eq!(held.len(), 3);
    let mut arrived = 0;
    while let Some(packet) = held.pop() {
        let frames = joined(&other, &packet);
        assert!(frames.len() == 1 && frames[0].bytes[54..] == segment(6, 60_000)[54..]);
        arrived += 1;
        other.complete(&packet);
        other.inline.serve();
        held.extend(other.take(0));
    }
    assert_eq!(arrived, 6);
}
