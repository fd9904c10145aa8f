//! Frames through whole channels: from the guest's ring to a backend, and back.

mod guest;

use std::sync::Arc;

use guest::*;
use synthvm_net::{Loop, NullNet, Switch};
use vmbus_loopback::bare::GuestRange;

#[test]
fn test_frame_in_a_section_comes_back_from_a_loop_unchanged() {
    let mut guest = NetGuest::start(Arc::new(Loop::new(1)));
    for length in [14, 60, 61, 1513, 1514] {
        let bytes = frame(3, length);
        assert_eq!(guest.send_in_section(&packet(&bytes, &[])), 1);
        assert_eq!(guest.receive(), [Frame { bytes, info: vec![] }], "{length} bytes");
    }
}

#[test]
fn test_several_packets_in_a_section_are_as_many_frames() {
    let mut guest = NetGuest::start(Arc::new(Loop::new(1)));
    let frames: Vec<_> = (0..8).map(|seed| frame(seed, 100 + usize::from(seed))).collect();
    let mut message = Vec::new();
    for bytes in &frames {
        let mut one = packet(bytes, &[]);
        let length = one.len().next_multiple_of(8);
        one.resize(length, 0);
        one[4..8].copy_from_slice(&(length as u32).to_le_bytes());
        message.extend(one);
    }
    assert_eq!(guest.send_in_section(&message), 1);
    let mut received = Vec::new();
    while received.len() < 8 {
        received.extend(guest.receive().into_iter().map(|frame| frame.bytes));
    }
    assert_eq!(received, frames);
}

/// Linux sends the header in a section, and the frame's data from its own pages.
#[test]
fn test_frame_in_section_and_ranges_of_any_shape_is_one_frame() {
    let mut guest = NetGuest::start(Arc::new(Loop::new(1)));
    let bytes = frame(9, 1400);
    let message = packet(&bytes, &[]);
    for section in [0, 44, 58, 100, 1000] {
        guest.channel.poke(SEND, 0, &message[..section]);
        // Two ranges, which begin at odd bytes and reach into a second page.
        let (one, two) = message[section..].split_at((message.len() - section) / 2);
        guest.channel.poke(REQUEST, 4001, one);
        guest.channel.poke(REQUEST + 4, 3, two);
        let ranges = [(REQUEST, 4001, one), (REQUEST + 4, 3, two)].map(|(page, offset, part)| {
            GuestRange { offset, count: part.len() as u32, pages: vec![page, page + 1] }
        });
        let nvsp = match section {
            0 => words(&[107, 0, NO_SECTION, 0]),
            _ => words(&[107, 0, 0, section as u32]),
        };
        let trimmed = ranges.map(|range| {
            let pages = (range.offset + range.count).div_ceil(4096) as usize;
            GuestRange { pages: range.pages[..pages].to_vec(), ..range }
        });
        assert_eq!(word(&guest.ask(&nvsp, &trimmed), 4), 1);
        assert_eq!(guest.receive()[0].bytes, bytes, "{section} bytes in the section");
    }
}

#[test]
fn test_malformed_messages_fail_and_the_channel_continues() {
    let mut guest = NetGuest::start(Arc::new(Loop::new(1)));
    let good = packet(&frame(1, 100), &[]);
    let mut long = good.clone();
    long[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut outside = good.clone();
    outside[8..12].copy_from_slice(&0xFFFF_0000_u32.to_le_bytes());
    for bad in [&good[..7], &good[..43], &long, &outside, &packet(&frame(1, 1519), &[])] {
        assert_eq!(guest.send_in_section(bad), 2);
    }
    for (section, size) in [(11, 100), (10, 6145), (u32::MAX - 1, 1), (0, u32::MAX)] {
        let completion = guest.ask(&words(&[107, 0, section, size]), &[]);
        assert_eq!(word(&completion, 4), 2, "section {section}, {size} bytes");
    }
    assert_eq!(guest.channel.try_receive(), None, "nothing was sent");
    assert_eq!(guest.send_in_section(&good), 1);
    assert_eq!(guest.receive().len(), 1);
}

#[test]
fn test_vlan_tag_beside_a_frame_goes_into_it_and_comes_back_beside_it() {
    let mut guest = NetGuest::start(Arc::new(Loop::new(1)));
    // Priority 5, id 100; the longest frame, which has four bytes more on the wire.
    let tag = 5 | 100 << 4;
    for length in [60, 1514] {
        let bytes = frame(4, length);
        assert_eq!(guest.send_in_section(&packet(&bytes, &[(6, tag)])), 1);
        assert_eq!(guest.receive(), [Frame { bytes, info: vec![(6, tag)] }]);
    }
}

#[test]
fn test_guest_without_a_filter_receives_nothing_and_what_waited_afterwards() {
    let mut guest = NetGuest::open(Arc::new(Loop::new(1)));
    guest.initialise();
    assert_eq!(guest.send_in_section(&packet(&frame(1, 60), &[])), 1);
    guest.inline.serve();
    assert_eq!(guest.channel.try_receive(), None);
    // Directed frames, and then none again.
    guest.set(0x0001_010E, &1_u32.to_le_bytes());
    assert_eq!(guest.receive()[0].bytes, frame(1, 60));
    guest.set(0x0001_010E, &0_u32.to_le_bytes());
    assert_eq!(guest.send_in_section(&packet(&frame(2, 60), &[])), 1);
    guest.inline.serve();
    assert_eq!(guest.channel.try_receive(), None);
}

#[test]
fn test_frames_for_other_stations_are_not_received() {
    let mut guest = NetGuest::start(Arc::new(Loop::new(1)));
    guest.set(0x0001_010E, &0xD_u32.to_le_bytes());
    let mut other = frame(1, 60);
    other[5] = 9;
    let mut broadcast = frame(2, 60);
    broadcast[..6].fill(0xFF);
    for bytes in [&other, &broadcast, &frame(3, 60)] {
        assert_eq!(guest.send_in_section(&packet(bytes, &[])), 1);
    }
    let mut received = guest.receive();
    while received.len() < 2 {
        received.extend(guest.receive());
    }
    assert_eq!(received[0].bytes, broadcast);
    assert_eq!(received[1].bytes, frame(3, 60));
}

#[test]
fn test_guest_that_completes_nothing_gets_no_more_than_its_buffer_holds() {
    let endless = NullNet::new(1).repeating(&frame(1, 60));
    let mut guest = NetGuest::start(Arc::new(endless));
    let mut held = Vec::new();
    for _ in 0..1000 {
        guest.inline.serve();
        held.extend(std::iter::from_fn(|| guest.channel.try_receive()));
    }
    let frames: usize = held.iter().map(|packet| packet.transfer.as_ref().unwrap().1.len()).sum();
    // 64 pages of 1,808 bytes each, less 16 for control messages.
    assert_eq!(frames, 64 * 4096 / 1808 - 16);
    // A control message is answered all the same.
    assert_eq!(guest.query(0x0101_0101).1, ADDRESS.0);
    for packet in &held {
        guest.complete(packet);
        // Twice: the second one completes nothing.
        guest.complete(packet);
    }
    guest.inline.serve();
    assert!(guest.channel.try_receive().is_some(), "reception continues");
}

#[test]
fn test_full_backend_keeps_messages_in_the_ring_until_it_has_space() {
    let switch = Switch::new(2).unwrap();
    let mut guest = NetGuest::start(Arc::new(switch.port(0).unwrap()));
    let port = switch.port(1).unwrap();
    let mut other = NetGuest::start(Arc::new(port));
    // The other guest does not run: its port fills up, then frames to it are dropped by the
    // switch, so every message is completed.
    for seed in 0..100 {
        let mut bytes = frame(seed, 200);
        bytes[..6].fill(0xFF);
        assert_eq!(guest.send_in_section(&packet(&bytes, &[])), 1);
    }
    let first = &other.receive()[0];
    assert_eq!(first.bytes[11], 0, "frames arrive in order, from the first on");
}

#[test]
fn test_revoked_receive_buffer_is_not_written_any_more() {
    let endless = NullNet::new(1).repeating(&frame(1, 60));
    let mut guest = NetGuest::start(Arc::new(endless));
    guest.inline.serve();
    while guest.channel.try_receive().is_some() {}
    guest.tell(&words(&[103, u32::from(SET)]));
    guest.channel.poke(RECEIVE, 0, &[0xEE; 4096]);
    for _ in 0..10 {
        guest.inline.serve();
    }
    assert!(guest.channel.peek(RECEIVE, 0, 4096) == [0xEE; 4096]);
    let relid = guest.channel.relid;
    guest.guest.teardown(relid, 100);
}

#[test]
fn test_channel_opened_again_begins_with_a_new_session() {
    let mut guest = NetGuest::start(Arc::new(Loop::new(1)));
    let offer = guest.guest.offers[0];
    for _ in 0..3 {
        let NetGuest { guest: mut bare, channel, inline, .. } = guest;
        let relid = channel.relid;
        bare.post_close(relid);
        bare.teardown(relid, 100);
        bare.teardown(relid, 101);
        bare.teardown(relid, channel.gpadl);
        guest = NetGuest::again(bare, offer, inline);
        guest.initialise();
        guest.set(0x0001_010E, &0x20_u32.to_le_bytes());
        assert_eq!(guest.send_in_section(&packet(&frame(7, 70), &[])), 1);
        assert_eq!(guest.receive()[0].bytes, frame(7, 70));
    }
}

/// Two guests on one switch, which completes and splits frames for a guest that cannot.
fn neighbours() -> (NetGuest, NetGuest) {
    let switch = Switch::new(2).unwrap();
    let start = |port| NetGuest::start(Arc::new(switch.port(port).unwrap()));
    (start(0), start(1))
}

/// The checksum of the bytes, which is 0 where they hold a right one.
fn checksum(start: u64, bytes: &[u8]) -> u16 {
    synthvm_net::software::checksum::finish(synthvm_net::software::checksum::sum(start, bytes))
}

/// An IPv4 frame with a TCP header and `payload` bytes; lengths and checksums are 0.
fn tcp4(payload: usize) -> Vec<u8> {
    let mut bytes = frame(0, 54 + payload);
    bytes[12..14].copy_from_slice(&[8, 0]);
    bytes[14..34]
        .copy_from_slice(&[0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    bytes[34..54]
        .copy_from_slice(&[0, 80, 4, 0, 0, 0, 0, 9, 0, 0, 0, 7, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    bytes
}

#[test]
fn test_large_segment_becomes_frames_with_right_lengths_checksums_and_payload() {
    let (mut guest, mut other) = neighbours();
    // Version 2 of the request, segments of 1,000 bytes, the TCP header at 34.
    let request = (2, 1000 | 34 << 20 | 1 << 30);
    let bytes = tcp4(5500);
    assert_eq!(guest.send_in_section(&packet(&bytes, &[request])), 1);
    let mut segments = Vec::new();
    while segments.len() < 6 {
        segments.extend(other.receive().into_iter().map(|frame| frame.bytes));
    }
    let mut payload = Vec::new();
    for (index, segment) in segments.iter().enumerate() {
        let total = u16::from_be_bytes([segment[16], segment[17]]);
        assert_eq!(usize::from(total), segment.len() - 14);
        assert_eq!(checksum(0, &segment[14..34]), 0, "the IP header of segment {index}");
        let pseudo = 6 + segment.len() as u64 - 34;
        let tcp = [&segment[26..34], &segment[34..]].concat();
        assert_eq!(checksum(pseudo, &tcp), 0, "TCP of segment {index}");
        let sequence = u32::from_be_bytes(segment[38..42].try_into().unwrap());
        assert_eq!(sequence as usize, 9 + payload.len());
        payload.extend_from_slice(&segment[54..]);
    }
    assert!(payload == bytes[54..]);
}

#[test]
fn test_checksum_that_the_guest_left_out_is_filled_in() {
    let (mut guest, mut other) = neighbours();
    other.set_offloads(2, 1);
    let mut bytes = tcp4(101);
    let total = bytes.len() as u16 - 14;
    bytes[16..18].copy_from_slice(&total.to_be_bytes());
    // The field holds the sum of the pseudo-header, and the guest wants the IP header's, too.
    let pseudo = 6 + bytes.len() as u64 - 34;
    let sum = !checksum(pseudo, &bytes[26..34]);
    bytes[50..52].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(guest.send_in_section(&packet(&bytes, &[(0, 1 | 1 << 2 | 1 << 4 | 34 << 16)])), 1);
    let received = other.receive().remove(0).bytes;
    assert_eq!(checksum(0, &received[14..34]), 0);
    assert_eq!(checksum(pseudo, &[&received[26..34], &received[34..]].concat()), 0);
    assert!(received[54..] == bytes[54..]);
}

#[test]
fn test_offload_request_that_does_not_fit_the_frame_fails() {
    let (mut guest, mut other) = neighbours();
    for (bytes, info) in [
        (tcp4(100), (2, 34 << 20 | 1 << 30)),
        (tcp4(100), (2, 1000 | 50 << 20 | 1 << 30)),
        (tcp4(100), (0, 1 | 1 << 3 | 34 << 16)),
        (frame(1, 100), (2, 1000 | 1 << 30)),
        (frame(1, 14), (0, 1 | 1 << 2)),
    ] {
        assert_eq!(guest.send_in_section(&packet(&bytes, &[info])), 2, "{info:x?}");
    }
    other.inline.serve();
    assert_eq!(other.channel.try_receive(), None);
}
