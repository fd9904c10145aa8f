//! Subchannels: requests, offers, frames on any channel, and channels that close.

mod guest;

use std::sync::Arc;

use guest::queues::{flow, hash};
use guest::*;
use synthvm_net::{Loop, NullNet};
use vmbus_loopback::bare::HostPacket;

/// Sub-allocations of the receive buffer for frames.
const FOR_FRAMES: usize = 64 * 4096 / SUB_ALLOCATION as usize - 16;

fn flows(packets: &[HostPacket], guest: &NetGuest) -> Vec<Frame> {
    packets.iter().flat_map(|packet| guest.frames(packet)).collect()
}

/// Checklist 37.
#[test]
fn test_subchannel_request_is_granted_once_and_within_the_limit() {
    let mut guest = NetGuest::open_with_channels(Arc::new(Loop::new(1)), 4);
    guest.initialise();
    for (operation, count) in [(1, 4), (2, 1), (0, 0), (1, u32::MAX), (1, 0x1_0001)] {
        let answer = guest.ask(&words(&[133, operation, count]), &[]);
        assert_eq!([0, 4, 8].map(|at| word(&answer, at)), [133, 2, 0], "{operation}, {count}");
    }
    assert_eq!(guest.guest.offers.len(), 1);
    guest.add_subchannels(3);
    let answer = guest.ask(&words(&[133, 1, 1]), &[]);
    assert_eq!(word(&answer, 4), 2, "a second request");
    // RSS capabilities report the same number of queues.
    assert_eq!(word(&guest.query(0x0001_0203).1, 12), 4);
}

#[test]
fn test_card_has_no_more_channels_than_its_backend_has_queues() {
    for (queues, asked, granted) in [(2, 4, 2), (4, 3, 3), (1, 64, 64), (1, 1000, 64)] {
        let mut guest = NetGuest::open_with_channels(Arc::new(Loop::new(queues)), asked);
        guest.initialise();
        let answer = guest.ask(&words(&[133, 1, granted]), &[]);
        assert_eq!(word(&answer, 4), 2);
        let answer = guest.ask(&words(&[133, 1, granted - 1]), &[]);
        assert_eq!([4, 8].map(|at| word(&answer, at)), [1, granted - 1]);
    }
    let mut guest = NetGuest::open(Arc::new(Loop::new(1)));
    guest.initialise();
    let answer = guest.ask(&words(&[133, 1, 0]), &[]);
    assert_eq!([4, 8].map(|at| word(&answer, at)), [1, 0]);
}

#[test]
fn test_frames_of_every_channel_are_sent_and_completed_there() {
    for queues in [1, 4] {
        let mut guest = NetGuest::start_with_channels(Arc::new(Loop::new(queues)), 4);
        for index in [3, 1, 0, 2] {
            // Not IP: frames without a hash go to the primary channel.
            let bytes = frame(index as u8, 100);
            assert_eq!(guest.send_on(index, &packet(&bytes, &[])), 1);
            guest.inline.serve();
            let back = if queues == 1 { 0 } else { index };
            let packets = guest.take(back);
            assert_eq!(flows(&packets, &guest), [Frame { bytes, info: vec![] }]);
            packets.iter().for_each(|packet| complete_on(guest.channel(back), packet));
        }
    }
}

#[test]
fn test_one_queue_is_spread_over_the_channels_by_hash_and_table() {
    let mut guest = NetGuest::start_with_channels(Arc::new(Loop::new(1)), 4);
    // Evenly, then two channels exchanged, then everything to one.
    for table in [[0, 1, 2, 3], [0, 2, 1, 3], [3, 3, 3, 3]] {
        guest.spread(&table);
        let mut counts = [0; 4];
        for port in 0..64 {
            let bytes = flow(port);
            assert_eq!(guest.send_on(usize::from(port % 4), &packet(&bytes, &[])), 1);
            guest.inline.serve();
            let expected = table[(hash(&bytes) % 4) as usize] as usize;
            counts[expected] += 1;
            let packets = guest.take(expected);
            let info = vec![(8, hash(&bytes))];
            assert_eq!(flows(&packets, &guest), [Frame { bytes, info }], "port {port}");
            packets.iter().for_each(|packet| complete_on(guest.channel(expected), packet));
        }
        assert!(table == [3; 4] || counts.iter().all(|&count| count > 4), "{counts:?}");
    }
    // Disabled: all frames go to the primary channel, without a hash.
    let mut data = vec![0x89, 2, 40, 0, 0x10, 0, 0, 0];
    data.extend([0; 32]);
    guest.set(0x0001_0204, &data);
    assert_eq!(guest.send_on(1, &packet(&flow(9), &[])), 1);
    assert_eq!(guest.receive(), [Frame { bytes: flow(9), info: vec![] }]);
}

#[test]
fn test_channels_with_their_own_queue_have_their_own_part_of_the_buffer() {
    let endless = NullNet::new(4).repeating(&flow(5));
    let mut guest = NetGuest::start_with_channels(Arc::new(endless), 4);
    let mut offsets = Vec::new();
    for _ in 0..100 {
        guest.inline.serve();
    }
    for index in 0..4 {
        let packets = guest.take(index);
        let ranges: Vec<_> =
            packets.iter().flat_map(|packet| packet.transfer.clone().unwrap().1).collect();
        assert_eq!(ranges.len(), FOR_FRAMES / 4, "channel {index}");
        offsets.extend(ranges.iter().map(|range| range.byte_offset));
        assert_eq!(flows(&packets, &guest)[0].info, [(8, hash(&flow(5)))]);
    }
    offsets.sort_unstable();
    offsets.dedup();
    assert_eq!(offsets.len(), FOR_FRAMES / 4 * 4, "a sub-allocation was used twice");
}

/// The buffer is divided again only when the guest has completed everything.
#[test]
fn test_subchannels_asked_for_under_traffic_receive_when_the_buffer_is_free() {
    let endless = NullNet::new(2).repeating(&frame(5, 60));
    let mut guest = NetGuest::open_with_channels(Arc::new(endless), 2);
    guest.initialise();
    guest.set(0x0001_010E, &0x20_u32.to_le_bytes());
    guest.inline.serve();
    let answer = guest.ask(&words(&[133, 1, 1]), &[]);
    assert_eq!(word(&answer, 4), 1);
    let offers = guest.guest.offers.len();
    guest.guest.await_offers(offers + 1);
    let offer = guest.guest.offers[offers];
    let subchannel = guest.guest.open(offer, 8);
    guest.subchannels.push(subchannel);
    guest.inline.serve();
    assert!(guest.take(1).is_empty());
    let mut packets = guest.take_early();
    packets.extend(guest.take(0));
    packets.retain(|packet| packet.transfer.is_some());
    assert_eq!(flows(&packets, &guest).len(), FOR_FRAMES);
    for packet in &packets {
        guest.complete(packet);
    }
    for _ in 0..10 {
        guest.inline.serve();
    }
    for index in 0..2 {
        let packets = guest.take(index);
        assert_eq!(flows(&packets, &guest).len(), FOR_FRAMES / 2, "channel {index}");
    }
}

#[test]
fn test_channels_opened_in_any_order_get_the_send_table_after_the_last() {
    let mut guest = NetGuest::open_with_channels(Arc::new(Loop::new(1)), 4);
    guest.initialise();
    guest.ask(&words(&[133, 1, 3]), &[]);
    guest.guest.await_offers(4);
    guest.spread(&[1]);
    guest.set(0x0001_010E, &0x20_u32.to_le_bytes());
    let mut opened = Vec::new();
    for index in [2, 3, 1] {
        assert_eq!(guest.channel.try_receive(), None);
        // Its channel is not open: the frame comes on the primary one.
        assert_eq!(guest.send_in_section(&packet(&flow(7), &[])), 1);
        assert_eq!(guest.receive()[0].bytes, flow(7));
        let offer = guest.guest.offers[index];
        opened.push((index, guest.guest.open(offer, 8)));
        guest.inline.serve();
    }
    assert_eq!(guest.send_table(), [0, 1, 2, 3].repeat(4));
    opened.sort_by_key(|(index, _)| *index);
    guest.subchannels.extend(opened.into_iter().map(|(_, channel)| channel));
    assert_eq!(guest.send_on(0, &packet(&flow(7), &[])), 1);
    guest.inline.serve();
    let packets = guest.take(1);
    assert_eq!(flows(&packets, &guest).len(), 1);
}

#[test]
fn test_completions_on_any_channel_free_the_sub_allocations() {
    for queues in [1, 4] {
        let mut guest = NetGuest::start_with_channels(Arc::new(Loop::new(queues)), 4);
        guest.spread(&[2]);
        for number in 0..FOR_FRAMES * 3 {
            let sender = if queues == 1 { number % 4 } else { 2 };
            assert_eq!(guest.send_on(sender, &packet(&flow(number as u16), &[])), 1);
            guest.inline.serve();
            let packets = guest.take(2);
            assert_eq!(flows(&packets, &guest).len(), 1, "frame {number}");
            let other = number % 4;
            packets.iter().for_each(|packet| {
                complete_on(guest.channel(other), packet);
                // Again on its own channel, and an id that no packet has.
                complete_on(guest.channel(2), packet);
                let mut unknown = packet.clone();
                unknown.transaction_id = u64::from(u32::MAX) << 32 | number as u64;
                complete_on(guest.channel(other), &unknown);
            });
        }
    }
}

#[test]
fn test_flooded_channel_that_completes_nothing_does_not_starve_the_others() {
    let mut guest = NetGuest::start_with_channels(Arc::new(Loop::new(1)), 4);
    let port_of = |channel| (0..).find(|&port| hash(&flow(port)) % 4 == channel).unwrap();
    let flooded = packet(&flow(port_of(1)), &[]);
    for _ in 0..FOR_FRAMES * 2 {
        assert_eq!(guest.send_on(0, &flooded), 1);
        guest.inline.serve();
    }
    let held = guest.take(1);
    assert_eq!(flows(&held, &guest).len(), FOR_FRAMES / 4);
    for _ in 0..10 {
        for channel in [0, 2, 3] {
            assert_eq!(guest.send_on(1, &packet(&flow(port_of(channel)), &[])), 1);
            guest.inline.serve();
            let packets = guest.take(channel as usize);
            assert_eq!(flows(&packets, &guest).len(), 1, "channel {channel}");
            packets.iter().for_each(|one| complete_on(guest.channel(channel as usize), one));
        }
    }
    held.iter().for_each(|packet| complete_on(guest.channel(1), packet));
    guest.inline.serve();
    assert_eq!(guest.send_on(0, &flooded), 1);
    guest.inline.serve();
    assert_eq!(guest.take(1).len(), 1, "reception continues");
}

#[test]
fn test_closed_subchannel_leaves_its_frames_to_the_primary_and_may_be_opened_again() {
    let mut guest = NetGuest::start_with_channels(Arc::new(Loop::new(1)), 2);
    guest.spread(&[1]);
    let offer = guest.guest.offers[1];
    for round in 0..3 {
        // More than the buffer holds, in all rounds, and never completed.
        for number in 0..FOR_FRAMES / 2 {
            assert_eq!(guest.send_on(0, &packet(&flow(number as u16), &[])), 1);
            guest.inline.serve();
        }
        assert_eq!(guest.take(1).len(), FOR_FRAMES / 2, "round {round}");
        let channel = guest.subchannels.pop().unwrap();
        guest.guest.close(channel);
        for number in 0..FOR_FRAMES {
            assert_eq!(guest.send_on(0, &packet(&flow(number as u16), &[])), 1);
            assert_eq!(guest.receive()[0].bytes, flow(number as u16));
        }
        let channel = guest.guest.open(offer, 8);
        guest.subchannels.push(channel);
        guest.inline.serve();
    }
}

#[test]
fn test_reloaded_driver_gets_its_subchannels_again() {
    let mut guest = NetGuest::start_with_channels(Arc::new(Loop::new(1)), 3);
    let offer = guest.guest.offers[0];
    for _ in 0..3 {
        // Frames are in the rings, and not completed.
        for port in 0..20 {
            assert_eq!(guest.send_on(usize::from(port % 3), &packet(&flow(port), &[])), 1);
        }
        let (mut bare, inline) = guest.close();
        bare.offers.truncate(1);
        guest = NetGuest::again(bare, offer, inline);
        guest.initialise();
        guest.add_subchannels(2);
        guest.spread(&[0, 1, 2]);
        guest.set(0x0001_010E, &0x20_u32.to_le_bytes());
    }
}

#[test]
fn test_subchannel_carries_frames_only() {
    let mut guest = NetGuest::start_with_channels(Arc::new(Loop::new(1)), 3);
    // Checklist 35: a control message, then an unknown channel type.
    for channel_type in [1, 2] {
        let nvsp = full(&words(&[107, channel_type, NO_SECTION, 0]));
        let answer = guest.channel(1).ask(&nvsp, &[]);
        assert_eq!([0, 4].map(|at| word(&answer, at)), [108, 2]);
    }
    // The channel stops at a message of the primary channel; the others go on.
    guest.channel(1).send(5, &full(&words(&[1, 0x60001, 0x60001])), &[]);
    guest.inline.serve();
    guest.channel(1).send(6, &full(&words(&[107, 0, 0, 100])), &[]);
    guest.inline.serve();
    assert_eq!(guest.take(1), []);
    guest.spread(&[1]);
    assert_eq!(guest.send_on(2, &packet(&flow(3), &[])), 1);
    assert_eq!(guest.receive()[0].bytes, flow(3), "the primary channel has the frame");
}

/// Checklist 8.
#[test]
fn test_revoked_buffer_is_completed_when_no_channel_writes_it() {
    let endless = NullNet::new(2).repeating(&frame(5, 60));
    let mut guest = NetGuest::start_with_channels(Arc::new(endless), 2);
    guest.inline.serve();
    for index in 0..2 {
        guest.take(index);
    }
    guest.channel.send(77, &full(&words(&[103, u32::from(SET)])), &[]);
    // The primary channel waits for the other one.
    guest.inline.serve();
    guest.inline.serve();
    let completion = guest.take(0).pop().unwrap();
    assert_eq!((completion.transaction_id, completion.payload), (77, vec![]));
    guest.channel.poke(RECEIVE, 0, &vec![0xEE; 64 * 4096]);
    for _ in 0..10 {
        guest.inline.serve();
    }
    assert!(guest.channel.peek(RECEIVE, 0, 64 * 4096) == vec![0xEE; 64 * 4096]);
    // Frames of either channel are refused without the buffer.
    for index in 0..2 {
        guest.take(index);
        assert_eq!(guest.send_on(index, &packet(&frame(1, 60), &[])), 2);
    }
    let relid = guest.channel.relid;
    guest.guest.teardown(relid, 100);
}
