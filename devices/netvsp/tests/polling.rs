//! A guest that polls both rings and never wants a signal.

mod guest;

use std::sync::Arc;

use guest::queues::flow;
use guest::*;
use synthvm_net::{Loop, NullNet};
use vmbus_ring::OutPacket;

#[test]
fn test_guest_that_masks_interrupts_for_ever_gets_everything_without_a_signal() {
    for queues in [1, 2] {
        let mut guest = NetGuest::start_with_channels(Arc::new(Loop::new(queues)), 2);
        let relids = [0, 1].map(|index| guest.channel(index).relid as u16);
        (0..2).for_each(|index| guest.channel(index).incoming.mask());
        let signals = |guest: &NetGuest| relids.map(|relid| guest.channel.synic.events(relid));
        let before = signals(&guest);
        let (mut sent, mut completed, mut received) = (0, 0, 0);
        for round in 0..200_u16 {
            for index in 0..2_usize {
                // The longest frames, so that rings of 28 KiB and the buffer fill up.
                let message = packet(&flow(round * 2 + index as u16), &[]);
                let section = u32::from(round % 5) * 2 + index as u32;
                guest.channel.poke(SEND, u64::from(section) * 6144, &message);
                let nvsp = full(&words(&[107, 0, section, message.len() as u32]));
                if guest.channel(index).try_send(u64::from(round), &nvsp, &[]) {
                    sent += 1;
                }
            }
            // The guest looks at its rings only now and then.
            guest.inline.serve();
            if round % 8 != 0 {
                continue;
            }
            let taken = take_all(&mut guest);
            (completed, received) = (completed + taken.0, received + taken.1);
        }
        // What is left.
        while completed < sent || received < sent {
            let before = completed + received;
            guest.inline.serve();
            let taken = take_all(&mut guest);
            (completed, received) = (completed + taken.0, received + taken.1);
            assert!(completed + received > before, "{sent} sent, {completed}, {received}");
        }
        assert!(sent > 100);
        assert_eq!((completed, received), (sent, sent));
        assert_eq!(signals(&guest), before, "a signal was sent");
    }
}

/// Checklist 26.
#[test]
fn test_full_ring_to_the_guest_is_resumed_when_it_has_space() {
    let endless = NullNet::new(1).repeating(&frame(1, 60));
    let mut guest = NetGuest::start(Arc::new(endless));
    guest.channel.incoming.mask();
    // Single frames: each round adds a packet, until the buffer is full.
    for _ in 0..500 {
        let payload = full(&words(&[133, 2, 0]));
        let payload = [&payload[..]];
        let _ = guest.channel.try_write(&OutPacket::request(5, &payload));
        guest.inline.serve();
    }
    let mut answers = 0;
    loop {
        let packets = guest.take(0);
        answers += packets.iter().filter(|packet| packet.transfer.is_none()).count();
        if packets.is_empty() {
            break;
        }
        guest.inline.serve();
    }
    assert!(answers > 300, "{answers} answers");
}

/// Takes the packets of both channels and completes those with frames. Returns the number of
/// completions, and of frames.
fn take_all(guest: &mut NetGuest) -> (usize, usize) {
    let (mut completed, mut received) = (0, 0);
    for index in 0..2 {
        for packet in guest.take(index) {
            if packet.transfer.is_some() {
                received += guest.frames(&packet).len();
                complete_on(guest.channel(index), &packet);
            } else {
                completed += 1;
            }
        }
    }
    (completed, received)
}
