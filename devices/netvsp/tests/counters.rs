//! Counters of a card's channels.

mod guest;

use std::sync::Arc;

use guest::*;
use synthvm_net::{Attachment, LinkState, Loop, NullNet};
use synthvm_netvsp::{ChannelCounters, NetworkCard};
use vmbus_device::InlineWorkers;

/// Sub-allocations of the receive buffer for frames.
const FOR_FRAMES: u32 = 64 * 4096 / SUB_ALLOCATION - 16;

fn start(backend: Arc<dyn synthvm_net::Backend>) -> (NetGuest, NetworkCard) {
    let inline = InlineWorkers::default();
    let card = NetworkCard::with_channels(options(&inline), backend, 2);
    let mut guest = NetGuest::open_card(card.clone(), inline);
    assert_eq!(card.channel_counters(), [ChannelCounters::default(); 2]);
    guest.initialise();
    guest.set(0x0001_010E, &0x20_u32.to_le_bytes());
    (guest, card)
}

#[test]
fn test_counters_show_the_receive_buffer_in_use_until_the_guest_completes() {
    let (mut guest, card) = start(Arc::new(Loop::new(1)));
    guest.inline.serve();
    let idle = ChannelCounters { sub_allocations: FOR_FRAMES, ..ChannelCounters::default() };
    assert_eq!(card.channel_counters(), [idle, ChannelCounters::default()]);
    guest.send_on(0, &packet(&frame(1, 100), &[]));
    guest.inline.serve();
    let packets = guest.take(0);
    assert_eq!(card.channel_counters()[0], ChannelCounters { in_use: 1, ..idle });
    packets.iter().for_each(|packet| complete_on(&mut guest.channel, packet));
    guest.inline.serve();
    assert_eq!(card.channel_counters()[0], idle);
}

#[test]
fn test_counters_show_frames_that_the_guest_does_not_want() {
    let (mut guest, card) = start(Arc::new(Loop::new(1)));
    // Directed frames only, and none to this address.
    guest.set(0x0001_010E, &1_u32.to_le_bytes());
    let mut other = frame(1, 100);
    other[5] ^= 1;
    for _ in 0..3 {
        guest.send_on(0, &packet(&other, &[]));
        guest.inline.serve();
    }
    let counters = card.channel_counters()[0];
    assert_eq!((counters.unwanted, counters.in_use), (3, 0));
}

#[test]
fn test_counters_of_a_guest_that_completes_nothing_fill_up_and_end_with_the_channel() {
    let (mut guest, card) = start(Arc::new(NullNet::new(1).repeating(&frame(1, 100))));
    for _ in 0..100 {
        guest.inline.serve();
        guest.take(0);
    }
    let counters = card.channel_counters()[0];
    assert_eq!(counters.in_use, counters.sub_allocations);
    let NetGuest { guest: mut bare, channel, inline, .. } = guest;
    bare.post_close(channel.relid);
    inline.serve();
    let counters = card.channel_counters()[0];
    assert_eq!((counters.in_use, counters.sub_allocations), (0, 0));
}

/// Checklist 29: the counters of NDIS, from each part of the card that counts.
#[test]
fn test_queried_counters_are_the_totals_of_all_channels() {
    let mut guest = NetGuest::start_with_channels(Arc::new(Loop::new(1)), 2);
    let number = |guest: &mut NetGuest, oid| {
        let (status, bytes) = guest.query(oid);
        assert_eq!(status, 0);
        u64::from_le_bytes(bytes.try_into().unwrap())
    };
    let mut broadcast = frame(2, 200);
    broadcast[..6].fill(0xFF);
    let mut multicast = frame(3, 300);
    multicast[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
    for (channel, bytes) in [(0, frame(1, 100)), (1, frame(1, 101)), (1, broadcast), (0, multicast)]
    {
        assert_eq!(guest.send_on(channel, &packet(&bytes, &[])), 1);
    }
    guest.inline.serve();
    assert_eq!(guest.send_on(1, &packet(&frame(1, 14)[..13], &[])), 2);
    assert_eq!(guest.send_on(0, &packet(&frame(1, 100), &[])[..7]), 2);
    let completion = guest.ask(&words(&[107, 0, 4000, 100]), &[]);
    assert_eq!(word(&completion, 4), 2, "a section that is not there");
    let counters = [
        (0x0002_0101, 4),
        (0x0002_0102, 4),
        (0x0002_0103, 3),
        (0x0002_0201, 201),
        (0x0002_0202, 2),
        (0x0002_0203, 300),
        (0x0002_0204, 1),
        (0x0002_0205, 200),
        (0x0002_0206, 1),
        (0x0002_0207, 201),
        (0x0002_020A, 1),
        (0x0002_020B, 200),
        (0x0002_0219, 701),
        (0x0002_021A, 701),
        (0x0002_021C, 0),
    ];
    for (oid, expected) in counters {
        assert_eq!(number(&mut guest, oid), expected, "OID {oid:#x}");
    }
}

#[test]
fn test_queried_drops_are_counted_by_their_reason() {
    let endless = Arc::new(NullNet::new(1).repeating(&frame(1, 1515)));
    let attachment = Arc::new(Attachment::new(endless, LinkState::Up).unwrap());
    let (mut guest, card) = start(attachment.clone());
    guest.inline.serve();
    let number =
        |guest: &mut NetGuest, oid| u64::from_le_bytes(guest.query(oid).1.try_into().unwrap());
    assert_ne!(number(&mut guest, 0x0002_0104), 0, "longer than the MTU");
    assert_eq!(number(&mut guest, 0x0002_0102), 0);
    attachment.set_link(LinkState::Down);
    card.check_link();
    guest.inline.serve();
    let indication = guest.take(0);
    indication.iter().for_each(|packet| guest.complete(packet));
    let before = number(&mut guest, 0x0002_021C);
    assert_eq!(guest.send_on(0, &packet(&frame(1, 60), &[])), 1);
    assert_eq!(number(&mut guest, 0x0002_021C), before + 1, "the cable is pulled");
    assert_eq!(number(&mut guest, 0x0002_0101), 0);
}
