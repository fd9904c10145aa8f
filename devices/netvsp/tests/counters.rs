//! Counters of a card's channels.

mod guest;

use std::sync::Arc;

use guest::*;
use synthvm_net::{Loop, NullNet};
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
