//! Packets that no sane guest sends: refused as the spec says, or the channel stops.

mod guest;

use std::sync::Arc;

use guest::*;
use synthvm_net::{Loop, NullNet};
use vmbus_loopback::bare::{GuestRange, HostPacket};
use vmbus_ring::{OutPacket, PacketKind, TransferRange, transfer_pages_header};

/// Returns whether the primary channel still answers.
fn answers(guest: &mut NetGuest) -> bool {
    guest.channel.send(99, &full(&words(&[133, 2, 0])), &[]);
    guest.inline.serve();
    guest.channel.try_receive().is_some()
}

#[test]
fn test_transfer_pages_of_a_guest_stop_the_channel() {
    for index in 0..2 {
        let mut guest = NetGuest::start_with_channels(Arc::new(Loop::new(1)), 2);
        let mut header = Vec::new();
        let range = TransferRange { byte_count: 60, byte_offset: 0 };
        transfer_pages_header(SET, &[range], &mut header);
        let payload = full(&words(&[107, 0, NO_SECTION, 0]));
        let payload = [&payload[..]];
        let packet =
            OutPacket::request(7, &payload).with_header(PacketKind::TransferPages, &header);
        assert!(guest.channel(index).try_write(&packet));
        guest.inline.serve();
        assert_eq!(guest.channel(index).try_receive(), None);
        assert_eq!(answers(&mut guest), index == 1, "the other channel goes on");
        // The guest closes the channel and may open it again.
        if index == 0 {
            let (bare, inline) = guest.close();
            let offer = bare.offers[0];
            NetGuest::again(bare, offer, inline).initialise();
        }
    }
}

#[test]
fn test_messages_in_the_wrong_state_stop_the_channel() {
    let rndis = words(&[107, 0, NO_SECTION, 0]);
    let init = words(&[1, 0x60001, 0x60001]);
    // Before INIT, an RNDIS packet before the buffer, INIT twice, a message that is too short.
    let cases: [&[&[u8]]; 4] = [&[&rndis], &[&init, &rndis], &[&init, &init], &[&[1, 0]]];
    for messages in cases {
        let mut guest = NetGuest::open(Arc::new(Loop::new(1)));
        for message in messages {
            guest.channel.send(1, message, &[]);
            guest.inline.serve();
        }
        while guest.channel.try_receive().is_some() {}
        assert!(!answers(&mut guest), "{messages:?}");
    }
}

/// Checklist 10.
#[test]
fn test_messages_of_other_features_change_nothing() {
    let mut guest = NetGuest::start(Arc::new(Loop::new(1)));
    for kind in (109..=124).chain([2, 102, 105, 108, 126, 127, 128, 130, 132, 134, 136, 999]) {
        let answer = guest.ask(&words(&[kind, 1, 2, 3]), &[]);
        assert!(answer.is_empty(), "message {kind}");
    }
    assert_eq!(guest.send_in_section(&packet(&frame(1, 60), &[])), 1);
    assert_eq!(guest.receive()[0].bytes, frame(1, 60));
}

/// Checklist 21.
#[test]
fn test_completions_of_packets_that_do_not_exist_change_nothing() {
    let endless = NullNet::new(1).repeating(&frame(1, 60));
    let mut guest = NetGuest::start(Arc::new(endless));
    guest.inline.serve();
    let held = guest.take(0);
    let count = |packets: &[HostPacket]| -> usize {
        packets.iter().map(|packet| packet.transfer.as_ref().unwrap().1.len()).sum()
    };
    for id in [0, 1, 16, 17, 18, 145, u64::MAX, 1 << 32, u64::from(u32::MAX), 5 << 32 | 17] {
        let mut packet = held[0].clone();
        if held.iter().any(|one| one.transaction_id == id) {
            continue;
        }
        packet.transaction_id = id;
        guest.complete(&packet);
    }
    guest.inline.serve();
    assert_eq!(guest.take(0), [], "a sub-allocation was freed");
    // Each twice: as many frames come as were completed.
    for packet in &held {
        guest.complete(packet);
        guest.complete(packet);
    }
    guest.inline.serve();
    assert_eq!(count(&guest.take(0)), count(&held));
}

/// Checklist 36: the completions that free space are behind the requests, in the same ring.
#[test]
fn test_control_requests_without_end_are_refused_as_busy_and_later_ones_answered() {
    let mut guest = NetGuest::start(Arc::new(Loop::new(1)));
    let query = words(&[4, 28, 9, 0x0101_0101, 0, 20, 0]);
    guest.channel.poke(REQUEST, 0, &query);
    let memory = [GuestRange::at(REQUEST, query.len() as u32)];
    let nvsp = full(&words(&[107, 1, NO_SECTION, 0]));
    for round in 0..5 {
        let mut sent = 0;
        while guest.channel.try_send(sent, &nvsp, &memory) {
            sent += 1;
        }
        assert!(sent > 100, "{sent} requests");
        let mut packets = Vec::new();
        loop {
            guest.inline.serve();
            let more = guest.take(0);
            if more.is_empty() {
                break;
            }
            packets.extend(more);
        }
        let status = |packet: &HostPacket| word(&packet.payload, 4);
        let (answers, completions): (Vec<_>, Vec<_>) =
            packets.into_iter().partition(|packet| packet.transfer.is_some());
        assert_eq!(completions.len() as u64, sent, "round {round}");
        let refused = completions.iter().filter(|packet| status(packet) == 6).count();
        assert_eq!((answers.len(), refused as u64), (15, sent - 15));
        answers.iter().for_each(|packet| guest.complete(packet));
    }
    assert_eq!(guest.query(0x0101_0101).1, ADDRESS.0);
}

/// A guest with NDIS 5 gets at most 8 frames in a packet.
#[test]
fn test_guest_with_an_old_ndis_gets_small_packets() {
    for (version, most) in [([5, 1], 8), ([6, 0x1E], 64)] {
        let endless = NullNet::new(1).repeating(&frame(1, 60));
        let mut guest = NetGuest::open(Arc::new(endless));
        guest.ndis_version = version;
        guest.initialise();
        guest.set(0x0001_010E, &0x20_u32.to_le_bytes());
        guest.inline.serve();
        let packets = guest.take(0);
        let lengths = packets.iter().map(|packet| packet.transfer.as_ref().unwrap().1.len());
        assert_eq!(lengths.max(), Some(most));
    }
}
