//! The machine itself: memory layouts, event flags, doorbells, and rings without a client.

mod common;

use common::raw::{FromHost, RawGuest};
use common::{CLASS, client, echo_vm, offer, take_packets};
use vmbus_client::platform::{OutgoingKind, OutgoingPacket, Rings};
use vmbus_client::{ChannelState, Error, PacketObject, SendFlags};
use vmbus_host::{HvStatus, Signal, Synic};
use vmbus_loopback::{Config, Layout, LoopbackVm, Mode};
use vmbus_protocol::MessageBuffer;
use vmbus_protocol::limits::MAX_WAITING_MESSAGES;
use vmbus_protocol::message::{GpadlHeader, InitiateContact, MessageType};
use vmbus_ring::OutPacket;

fn followers(pages: &[u64]) -> usize {
    pages.windows(2).filter(|pair| pair[0] + 1 == pair[1]).count()
}

#[test]
fn test_pages_of_each_layout_lie_as_promised_across_regions_and_are_never_given_twice() {
    let regions = vec![(0, 1 << 20), (4 << 20, 1 << 20), (1 << 32, 2 << 20)];
    let vm = LoopbackVm::with_config(Config::new(Mode::Stepped).regions(regions)).unwrap();
    let all = vm.pages().free_pages();
    assert_eq!(all, 1024 - 1, "page 0 is nobody's");
    let contiguous = vm.pages().allocate(300, Layout::Contiguous).unwrap();
    let half = vm.pages().allocate(201, Layout::HalfContiguous).unwrap();
    let scattered = vm.pages().allocate(200, Layout::Scattered).unwrap();
    assert_eq!((followers(&contiguous), followers(&half), followers(&scattered)), (299, 100, 0));
    assert!(contiguous.iter().all(|&page| page >= 1 << 20), "only the last region has room");
    let mut given = [contiguous, half, scattered].concat();
    given.sort_unstable();
    given.dedup();
    assert_eq!(given.len(), 701);
    assert_eq!(vm.pages().allocate(400, Layout::Scattered), None);
    assert_eq!(vm.pages().free_pages(), all - 701, "a failed call takes nothing");
    vm.pages().free(&given);
    assert_eq!(vm.pages().free_pages(), all);
}

#[test]
fn test_memory_of_partial_pages_is_refused() {
    let regions = vec![(0x800, 1 << 20)];
    assert!(LoopbackVm::with_config(Config::new(Mode::Stepped).regions(regions)).is_err());
}

#[test]
fn test_event_flag_that_is_still_set_raises_no_second_interrupt() {
    let vm = LoopbackVm::new(Mode::Stepped);
    let synic = vm.synic();
    assert_eq!(synic.signal_event(1, 2, 2047), Signal::Raised);
    assert_eq!(synic.signal_event(1, 2, 2047), Signal::AlreadySet);
    assert_eq!(synic.signal_event(0, 2, 2047), Signal::Raised, "every VP has its own");
    assert_eq!(synic.interrupts(), (2, 1));
    let mut seen = Vec::new();
    synic.take_events(&mut |flag| seen.push(flag));
    assert_eq!(seen, [2047, 2047]);
    assert_eq!(synic.signal_event(1, 2, 2047), Signal::Raised);
    synic.set_enabled(1, false);
    assert_eq!(synic.signal_event(1, 2, 1), Signal::Disabled);
    assert_eq!(synic.signal_event(2, 2, 1), Signal::Disabled, "no such VP");
}

#[test]
fn test_doorbells_exist_from_offer_to_release_and_unknown_ids_are_refused() {
    let vm = echo_vm(Mode::Stepped, 1);
    assert_eq!(vm.signal_event(0x2001, 0), HvStatus::InvalidConnectionId);
    let client = client(&vm);
    let id = client.offers().next().unwrap().connection_id;
    assert_eq!(vm.synic().doorbells(), [id]);
    assert_eq!(vm.signal_event(id, 0), HvStatus::Success, "offered, not open: ignored");
    assert_eq!(vm.signal_event(id, 1), HvStatus::InvalidParameter);
    client.unload().unwrap();
    assert_eq!(vm.signal_event(id, 0), HvStatus::InvalidConnectionId);
}

#[test]
fn test_rings_by_hand_carry_packets_both_ways_while_the_client_keeps_off() {
    let vm = LoopbackVm::new(Mode::Stepped);
    let (_, opened) = vm.offer_manual(offer(0)).unwrap();
    let mut client = client(&vm);
    let id = client.allocate();
    let mut channel = client.channel(id);
    channel.init_set_target_pnp(CLASS, None).unwrap();
    channel.init_suppress_queue_management().unwrap();
    channel.enable().unwrap();
    client.wait_for_open(id).unwrap();
    let mut host = opened.take().unwrap();
    // The open signals the doorbell. The first read unmasks the ring.
    assert!(host.doorbell().read().is_ok() && take_packets(&mut host).unwrap().is_empty());
    let mut channel = client.channel(id);
    assert_eq!(channel.state(), ChannelState::Started);
    let refused = channel.send(PacketObject::new(), b"", None, SendFlags::empty());
    assert_eq!(refused, Err(Error::State("without queue management")));
    // Packets are written by the client's trait, or by `vmbus-ring` itself.
    let packet = OutgoingPacket {
        kind: OutgoingKind::InBand,
        transaction_id: 5,
        completion_requested: true,
        header: &[],
        payload: b"by hand!",
    };
    let rings = channel.rings().unwrap();
    assert!(!rings.incoming.unmask().unwrap());
    assert_eq!(rings.write(&packet), Ok(true), "an empty ring whose reader has not masked it");
    channel.signal();
    assert!(host.doorbell().read().is_ok());
    let seen = take_packets(&mut host).unwrap();
    assert_eq!((seen[0].transaction_id, &seen[0].payload[..]), (5, &b"by hand!"[..]));
    common::write(&mut host, &OutPacket::completion(5, &[b"answered"]));
    client.poll();
    let mut channel = client.channel(id);
    assert!(channel.take_event() && !channel.take_event());
    let mut batch = channel.rings().unwrap().incoming.batch().unwrap();
    assert_eq!(batch.next().unwrap().unwrap().transaction_id(), 5);
    assert!(!batch.commit());
}

#[test]
fn test_stepped_vm_does_nothing_until_it_is_stepped() {
    let vm = echo_vm(Mode::Stepped, 1);
    let mut client = client(&vm);
    let id = client.open(CLASS, None, None).unwrap();
    client
        .channel(id)
        .send(PacketObject::new(), b"request!", None, SendFlags::WAIT_FOR_COMPLETION)
        .unwrap();
    client.poll();
    assert_eq!(client.channel(id).queued_packets(), (0, 1), "the device has not run");
    vm.run_until_idle();
    assert_eq!(client.channel(id).queued_packets(), (0, 1), "the guest has not looked");
    client.poll();
    assert_eq!(client.channel(id).queued_packets(), (0, 0));
    assert!(!vm.step() && !client.wait(), "idle");
}

#[test]
fn test_two_vms_with_the_same_calls_make_the_same_events() {
    let run = || {
        let vm = echo_vm(Mode::Stepped, 2);
        let mut client = client(&vm);
        let id = client.open(CLASS, None, None).unwrap();
        for number in 0..50_u8 {
            let flags = SendFlags::WAIT_FOR_COMPLETION;
            client.channel(id).send(PacketObject::new(), &[number; 100], None, flags).unwrap();
            if number % 7 == 0 {
                client.run_until_idle();
            }
        }
        client.run_until_idle();
        let report = vm.inspect();
        let channel = &report.channels[0];
        (
            client.stats(),
            vm.synic().interrupts(),
            report.messages,
            channel.incoming,
            channel.signals_sent,
        )
    };
    assert_eq!(run(), run());
}

#[test]
fn test_messages_that_wait_for_the_guest_at_the_limit_and_past_it() {
    let guest = RawGuest::new(1);
    let unknown = MessageBuffer::new(
        MessageType::GpadlHeader,
        &GpadlHeader {
            relid: 99.into(),
            gpadl: 7.into(),
            range_buflen: 16.into(),
            range_count: 1.into(),
        },
    );
    let post = |message: &MessageBuffer| guest.vm.post_message(4, message.as_bytes());
    for number in 0..MAX_WAITING_MESSAGES {
        assert_eq!(
            post(&unknown),
            HvStatus::Success,
            "{number}: each gets an answer that nobody takes"
        );
    }
    assert_eq!(post(&unknown), HvStatus::InsufficientBuffers);
    // One message was taken, so one more may be posted.
    assert!(guest.vm.synic().take_any_message().is_some());
    assert_eq!(post(&unknown), HvStatus::Success);
    assert_eq!(post(&unknown), HvStatus::InsufficientBuffers);
    // A guest that connects again is accepted nevertheless.
    assert_eq!(post(&MessageBuffer::bare(MessageType::Unload)), HvStatus::Success);
    assert_eq!(guest.heard(), [FromHost::Other(MessageType::UnloadResponse)]);
}

#[test]
fn test_contacts_of_a_guest_that_never_listens_cost_no_more_than_the_limit() {
    let guest = RawGuest::new(1);
    guest.post(MessageType::Unload, &());
    let contact = InitiateContact::new(0x0009_0009, 0);
    for _ in 0..2 * MAX_WAITING_MESSAGES + 5 {
        guest.post(MessageType::InitiateContact, &contact);
        assert!(guest.vm.synic().waiting_messages() <= MAX_WAITING_MESSAGES);
    }
}
