//! The conformance checklist of kmcl.md section 6, items 12 to 18, 20 and 23: channels and packets.

mod common;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use common::raw::{FromHost, RawGuest};
use common::{BOTH_MODES, CLASS, client, complete, echo, echo_vm, offer, take_packets, write};
use vmbus_client::{
    Channel as ClientChannel, ChannelState, Completion, Driver, Error, PacketObject, Received,
    SendFlags, Waiting,
};
use vmbus_host::{Channel, OpenError};
use vmbus_loopback::{Flow, Handler, LoopbackPlatform, LoopbackVm, Mode};
use vmbus_protocol::offer::OfferFlags;
use vmbus_ring::{OutPacket, PacketKind, SpaceWait, WriteError};

const WAIT: SendFlags = SendFlags::WAIT_FOR_COMPLETION;
const RING: u32 = 0x77;

/// A recorder of events, which completes packets immediately or keeps their tokens.
#[derive(Clone, Default)]
struct Recorder {
    log: Arc<Mutex<Vec<String>>>,
    held: Arc<Mutex<VecDeque<Completion>>>,
    hold: bool,
    complete_in_suspend: bool,
}

impl Recorder {
    fn note(&self, text: impl Into<String>) {
        self.log.lock().unwrap().push(text.into());
    }

    fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    fn held(&self) -> Option<Completion> {
        self.held.lock().unwrap().pop_front()
    }
}

impl Driver<LoopbackPlatform> for Recorder {
    fn opened(
        &mut self,
        _: &mut ClientChannel<'_, LoopbackPlatform>,
    ) -> Result<(), vmbus_client::NtStatus> {
        self.note("opened");
        Ok(())
    }
    fn started(&mut self, channel: &mut ClientChannel<'_, LoopbackPlatform>) {
        self.note("started");
        let refused =
            channel.send_synchronous_request(b"too early", None, WAIT, &mut [], Waiting::Forever);
        assert_eq!(refused, Err(Error::State("not started")), "Windows would wait for ever");
        assert_eq!(channel.pause(), Err(Error::InCallback));
        assert_eq!(channel.disable(), Err(Error::InCallback));
    }
    fn post_started(&mut self, _: &mut ClientChannel<'_, LoopbackPlatform>) {
        self.note("post-started");
    }
    fn suspend(&mut self, channel: &mut ClientChannel<'_, LoopbackPlatform>) {
        self.note("suspend");
        while self.complete_in_suspend
            && let Some(token) = self.held()
        {
            channel.packet_complete(token, b"late").unwrap();
        }
    }
    fn closed(&mut self, _: &mut ClientChannel<'_, LoopbackPlatform>) {
        self.note("closed");
    }
    fn process_packet(
        &mut self,
        channel: &mut ClientChannel<'_, LoopbackPlatform>,
        packet: Received,
    ) {
        self.note(format!("packet {}", packet.payload[0]));
        if self.hold {
            self.held.lock().unwrap().push_back(packet.completion);
        } else {
            channel.packet_complete(packet.completion, &[packet.payload[0]; 8]).unwrap();
        }
    }
    fn processing_complete(&mut self, _: &mut ClientChannel<'_, LoopbackPlatform>, packets: u32) {
        self.note(format!("batch of {packets}"));
    }
}

#[test]
fn test_kmcl_12_refused_open_reports_failure_gpadls_survive_and_reopen_works() {
    let guest = RawGuest::new(1);
    let relid = guest.relid(0);
    guest.describe(relid, 5, &[(0, 4096, &[9])]);
    guest.opened[0].refuse(1);
    let (_pages, _rings) = guest.ask_open(0, RING);
    let heard = guest.heard();
    assert_eq!(heard[..2], [FromHost::Created(relid, 5, 0), FromHost::Created(relid, RING, 0)]);
    assert!(
        matches!(heard[2..], [FromHost::Opened(of, _, status)] if of == relid && status != 0),
        "{heard:?}"
    );
    assert_eq!(guest.vm.inspect().gpadls.len(), 2);
    guest.tear_down(relid, 5);
    guest.tear_down(relid, RING);
    assert_eq!(guest.heard(), [FromHost::Torndown(5), FromHost::Torndown(RING)]);
    let channel = guest.open(0, RING);
    assert_eq!(channel.relid, relid);
}

#[test]
fn test_kmcl_12_client_sees_the_refusal_gives_all_pages_back_and_can_enable_again() {
    let vm = LoopbackVm::new(Mode::Stepped);
    let (_, opened) = vm.offer_manual(offer(0)).unwrap();
    opened.refuse(1);
    let mut client = client(&vm);
    let before = vm.pages().free_pages();
    let id = client.allocate();
    client.channel(id).init_set_target_pnp(CLASS, None).unwrap();
    client.channel(id).enable().unwrap();
    assert!(matches!(client.wait_for_open(id), Err(Error::Host(status)) if !status.is_success()));
    assert_eq!(client.channel(id).state(), ChannelState::Disabled);
    assert_eq!(vm.pages().free_pages(), before);
    assert!(vm.inspect().gpadls.is_empty());
    client.channel(id).enable().unwrap();
    assert_eq!(client.wait_for_open(id), Ok(()));
    assert!(opened.take().is_some());
}

#[test]
fn test_kmcl_13_each_request_gets_exactly_one_completion_with_its_id_and_others_none() {
    for mode in BOTH_MODES {
        let vm = echo_vm(mode, 1);
        let mut client = client(&vm);
        let id = client.open(CLASS, None, None).unwrap();
        let ended = Arc::new(Mutex::new(Vec::<(u8, Vec<u8>)>::new()));
        for number in 0..100_u8 {
            let ended = Arc::clone(&ended);
            let packet = PacketObject::with_routine(move |_, answer| {
                ended.lock().unwrap().push((number, answer.result.unwrap().to_vec()));
            });
            let flags = if number.is_multiple_of(2) { WAIT } else { SendFlags::empty() };
            client.channel(id).send(packet, &[number; 8], None, flags).unwrap();
        }
        let mut echoes = Vec::new();
        while ended.lock().unwrap().len() < 100 || echoes.len() < 50 {
            assert!(client.wait());
            while let Some(received) = client.channel(id).receive() {
                assert!(!received.completion.requested());
                echoes.push(received.payload[0]);
                client.channel(id).packet_complete(received.completion, b"").unwrap();
            }
        }
        let mut ended = std::mem::take(&mut *ended.lock().unwrap());
        ended.sort();
        let expected = |number: u8| {
            (number, if number.is_multiple_of(2) { vec![number; 8] } else { Vec::new() })
        };
        assert_eq!(ended, (0..100).map(expected).collect::<Vec<_>>());
        assert_eq!(echoes, (0..100).filter(|number| number % 2 == 1).collect::<Vec<u8>>());
        assert_eq!(client.stats().stray_completions, 0);
        assert_eq!(client.channel(id).queued_packets(), (0, 0));
    }
}

#[test]
fn test_kmcl_13_client_completes_the_hosts_requests_exactly_once_and_others_never() {
    let vm = LoopbackVm::new(Mode::Stepped);
    let (_, opened) = vm.offer_manual(offer(0)).unwrap();
    let mut client = client(&vm);
    let recorder = Recorder::default();
    client.open(CLASS, None, Some(Box::new(recorder.clone()))).unwrap();
    assert_eq!(recorder.log(), ["opened", "started", "post-started"]);
    let mut host = opened.take().unwrap();
    write(&mut host, &OutPacket::request(u64::MAX, &[&[1; 8]]));
    write(&mut host, &OutPacket::in_band(7, &[&[2; 8]]));
    write(&mut host, &OutPacket::request(0, &[&[3; 8]]));
    client.poll();
    assert_eq!(recorder.log(), ["packet 1", "packet 2", "packet 3", "batch of 3"]);
    let seen = take_packets(&mut host).unwrap();
    let seen: Vec<_> =
        seen.iter().map(|seen| (seen.kind, seen.transaction_id, seen.payload[0])).collect();
    assert_eq!(seen, [(PacketKind::Completion, u64::MAX, 1), (PacketKind::Completion, 0, 3)]);
}

#[test]
fn test_kmcl_14_completions_in_any_order_reach_their_requests() {
    let vm = LoopbackVm::new(Mode::Stepped);
    let (_, opened) = vm.offer_manual(offer(0)).unwrap();
    let mut client = client(&vm);
    let id = client.open(CLASS, None, None).unwrap();
    let mut host = opened.take().unwrap();
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let ended: Arc<Mutex<Vec<(u8, u8)>>> = Arc::default();
        for number in 0..3_u8 {
            let ended = Arc::clone(&ended);
            let packet = PacketObject::with_routine(move |_, answer| {
                ended.lock().unwrap().push((number, answer.result.unwrap()[0]));
            });
            client.channel(id).send(packet, &[number; 8], None, WAIT).unwrap();
        }
        let seen = take_packets(&mut host).unwrap();
        for place in order {
            complete(&mut host, seen[place].transaction_id, &seen[place].payload);
        }
        client.poll();
        let expected: Vec<_> = order.iter().map(|&place| (place as u8, place as u8)).collect();
        assert_eq!(*ended.lock().unwrap(), expected);
    }
}

/// Sends `count` numbered packets in order, as fast as the ring accepts them.
fn flood(count: u64) -> impl FnMut(&Channel) -> Result<Handler, OpenError> + Send {
    move |_| {
        let mut next = 0;
        Ok(Box::new(move |channel| {
            if channel.is_closing() || take_packets(channel).is_err() {
                return Flow::Stop;
            }
            while next < count {
                let bytes = [next.to_le_bytes(), [0xAA; 8]].concat();
                let mut batch = channel.outgoing.batch().unwrap();
                match batch.write(&OutPacket::in_band(next, &[&bytes])) {
                    Ok(()) => {
                        let signal = batch.commit();
                        channel.signal_if(signal);
                        channel.outgoing.space_came();
                        next += 1;
                    }
                    Err(WriteError::Full { needed }) => {
                        if channel.outgoing.wait_for_space(needed).unwrap() != SpaceWait::Ready {
                            return Flow::Wait;
                        }
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            Flow::Wait
        }))
    }
}

#[test]
fn test_kmcl_15_full_ring_on_the_host_side_keeps_order_and_loses_nothing() {
    for mode in BOTH_MODES {
        let vm = LoopbackVm::new(mode);
        vm.offer_served(offer(0), flood(5000)).unwrap();
        let mut client = client(&vm);
        let id = client.allocate();
        client.channel(id).init_set_target_pnp(CLASS, None).unwrap();
        client.channel(id).init_set_ring_buffer_page_count(2, 2).unwrap();
        client.channel(id).enable().unwrap();
        client.wait_for_open(id).unwrap();
        for number in 0..5000_u64 {
            let received = loop {
                if let Some(received) = client.channel(id).receive() {
                    break received;
                }
                assert!(client.wait(), "stalled before packet {number}");
            };
            assert_eq!(received.payload[..8], number.to_le_bytes());
            client.channel(id).packet_complete(received.completion, b"").unwrap();
        }
        client.poll();
        assert!(client.channel(id).receive().is_none());
        client.channel(id).disable().unwrap();
    }
}

#[test]
fn test_kmcl_15_full_ring_on_the_client_side_queues_in_order_and_resumes_on_the_space_signal() {
    for mode in BOTH_MODES {
        let vm = echo_vm(mode, 1);
        let mut client = client(&vm);
        let id = client.allocate();
        client.channel(id).init_set_target_pnp(CLASS, None).unwrap();
        client.channel(id).init_set_ring_buffer_page_count(32, 2).unwrap();
        client.channel(id).enable().unwrap();
        let ended: Arc<Mutex<Vec<u32>>> = Arc::default();
        for number in 0..1000_u32 {
            let ended = Arc::clone(&ended);
            let packet = PacketObject::with_routine(move |_, answer| {
                assert_eq!(answer.result.unwrap()[..4], number.to_le_bytes());
                ended.lock().unwrap().push(number);
            });
            // The first half is sent before there is a ring.
            if number == 500 {
                assert_eq!(client.channel(id).queued_packets(), (500, 0));
                client.wait_for_open(id).unwrap();
            }
            let bytes = [number.to_le_bytes(); 16].concat();
            client.channel(id).send(packet, &bytes, None, WAIT).unwrap();
        }
        while ended.lock().unwrap().len() < 1000 {
            assert!(client.wait(), "stalled after {} answers", ended.lock().unwrap().len());
        }
        assert_eq!(*ended.lock().unwrap(), (0..1000).collect::<Vec<u32>>());
        client.channel(id).disable().unwrap();
    }
}

#[test]
fn test_kmcl_16_malformed_packets_stop_only_their_channel_and_it_can_be_reopened() {
    let guest = RawGuest::new(2);
    let mut other = guest.open(1, RING + 1);
    let word = |kind: u64, offset8: u64, length8: u64| kind | offset8 << 16 | length8 << 32;
    let bad: &[(&str, u32, u64)] = &[
        ("length below descriptor", 64, word(6, 2, 1)),
        ("payload inside descriptor", 64, word(6, 1, 3)),
        ("payload behind packet", 64, word(6, 9, 3)),
        ("longer than what waits", 64, word(6, 2, 8)),
        ("longer than the ring", 64, word(6, 2, 0xFFFF)),
        ("unknown type", 64, word(1, 2, 3)),
        ("write index beyond the ring", 3 * 4096, word(6, 2, 3)),
        ("write index between units", 12, word(6, 2, 3)),
        ("write index absurd", u32::MAX, word(6, 2, 3)),
    ];
    for &(why, write_index, descriptor) in bad {
        let mut channel = guest.open(0, RING);
        guest.write(channel.pages[1], 0, &descriptor.to_le_bytes());
        guest.write(channel.pages[0], 0, &write_index.to_le_bytes());
        assert!(take_packets(&mut channel.host).is_err(), "{why}");
        drop(channel.host);
        guest.close(channel.relid);
        guest.tear_down(channel.relid, RING);
        assert_eq!(guest.heard(), [FromHost::Torndown(RING)], "{why}");
        // The other channel is not affected.
        let mut batch = other.rings.outgoing.batch().unwrap();
        batch.write(&OutPacket::in_band(1, &[b"still alive"])).unwrap();
        let _ = batch.commit();
        assert_eq!(take_packets(&mut other.host).unwrap().len(), 1, "{why}");
        let packet = OutPacket::in_band(2, &[b"so am I"]);
        write(&mut other.host, &packet);
        let mut batch = other.rings.incoming.batch().unwrap();
        assert!(batch.next().unwrap().is_some(), "{why}");
        let _ = batch.commit();
    }
}

#[test]
fn test_kmcl_17_no_packet_is_delivered_between_suspend_and_the_next_start() {
    let vm = LoopbackVm::new(Mode::Stepped);
    let (_, opened) = vm.offer_manual(offer(0)).unwrap();
    let mut client = client(&vm);
    let recorder = Recorder { hold: true, complete_in_suspend: true, ..Recorder::default() };
    let id = client.open(CLASS, None, Some(Box::new(recorder.clone()))).unwrap();
    let mut host = opened.take().unwrap();
    recorder.log();
    write(&mut host, &OutPacket::request(1, &[&[1; 8]]));
    client.poll();
    client.channel(id).pause().unwrap();
    assert_eq!(recorder.log(), ["packet 1", "batch of 1", "suspend"]);
    assert_eq!(take_packets(&mut host).unwrap().len(), 1, "completed in suspend");
    write(&mut host, &OutPacket::request(2, &[&[2; 8]]));
    client.run_until_idle();
    assert_eq!(recorder.log(), [""; 0]);
    assert_eq!(client.channel(id).state(), ChannelState::Paused);
    client.channel(id).start().unwrap();
    assert_eq!(recorder.log(), ["started", "packet 2", "batch of 1", "post-started"]);
    drop(host);
    client.channel(id).disable().unwrap();
    assert_eq!(recorder.log(), ["suspend", "closed"]);
}

#[test]
fn test_kmcl_17_pause_waits_for_packets_that_are_still_held_and_a_start_continues() {
    let vm = LoopbackVm::new(Mode::Stepped);
    let (_, opened) = vm.offer_manual(offer(0)).unwrap();
    let mut client = client(&vm);
    let recorder = Recorder { hold: true, ..Recorder::default() };
    let id = client.open(CLASS, None, Some(Box::new(recorder.clone()))).unwrap();
    let mut host = opened.take().unwrap();
    write(&mut host, &OutPacket::request(1, &[&[1; 8]]));
    client.poll();
    assert_eq!(
        client.channel(id).pause(),
        Err(Error::Outstanding(1)),
        "Windows would wait for ever"
    );
    let token = recorder.held().unwrap();
    client.channel(id).packet_complete(token, b"").unwrap();
    client.channel(id).start().unwrap();
    assert_eq!(client.channel(id).pause(), Ok(()));
    let completions = take_packets(&mut host).unwrap();
    assert_eq!(completions.iter().map(|packet| packet.transaction_id).collect::<Vec<_>>(), [1]);
}

#[test]
fn test_kmcl_17_disable_cancels_our_packets_and_a_rescind_removes_them() {
    for rescind in [false, true] {
        let vm = LoopbackVm::new(Mode::Threaded);
        let key = vm
            .offer_served(offer(0), |_| {
                Ok(Box::new(
                    |channel: &mut Channel| {
                        if channel.is_closing() { Flow::Stop } else { Flow::Wait }
                    },
                ))
            })
            .unwrap();
        let mut client = client(&vm);
        let recorder = Recorder::default();
        let id = client.open(CLASS, None, Some(Box::new(recorder.clone()))).unwrap();
        let before = vm.pages().free_pages();
        let result = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&result);
        let packet = PacketObject::with_routine(move |_, answer| {
            *seen.lock().unwrap() = Some(answer.result.unwrap_err());
        });
        client.channel(id).send(packet, b"never answered", None, WAIT).unwrap();
        recorder.log();
        if rescind {
            vm.bus().rescind(key);
            let answer = client.channel(id).send_synchronous_request(
                b"",
                None,
                WAIT,
                &mut [],
                Waiting::Forever,
            );
            assert_eq!(answer, Err(Error::Removed));
            client.poll();
            assert_eq!(client.channel(id).failure(), Some(Error::Removed));
            assert_eq!(client.offers().count(), 0);
            assert!(vm.inspect().channels.is_empty(), "released");
        } else {
            client.channel(id).disable().unwrap();
        }
        let expected = if rescind { Error::Removed } else { Error::Cancelled };
        assert_eq!(*result.lock().unwrap(), Some(expected));
        assert_eq!(recorder.log(), ["suspend", "closed"]);
        assert_eq!(client.channel(id).state(), ChannelState::Disabled);
        assert!(vm.pages().free_pages() > before);
    }
}

#[test]
fn test_kmcl_18_machine_reset_with_open_channels_releases_everything() {
    for mode in BOTH_MODES {
        let vm = echo_vm(mode, 3);
        for _ in 0..3 {
            let mut client = client(&vm);
            let relids: Vec<u32> = client.offers().map(|offer| offer.relid).collect();
            assert_eq!(relids, [1, 2, 3]);
            for number in 0..3 {
                let id = client.open(CLASS, Some(common::instance(number)), None).unwrap();
                client.channel(id).send(PacketObject::new(), b"in flight", None, WAIT).unwrap();
            }
            drop(client.abandon());
            vm.reset();
            let report = vm.inspect();
            assert!(report.gpadls.is_empty());
            assert!(report.channels.iter().all(|channel| channel.incoming.is_none()));
        }
    }
}

#[test]
fn test_kmcl_18_new_contact_without_unload_is_a_full_reset() {
    for mode in BOTH_MODES {
        let vm = echo_vm(mode, 1);
        for _ in 0..5 {
            let mut client = client(&vm);
            let id = client.open(CLASS, None, None).unwrap();
            client.channel(id).send(PacketObject::new(), b"in flight", None, WAIT).unwrap();
            drop(client.abandon());
        }
        let client = client(&vm);
        client.unload_abruptly().unwrap();
        assert!(vm.inspect().gpadls.is_empty());
    }
}

#[test]
fn test_kmcl_20_offer_carries_guids_flags_mmio_and_120_bytes() {
    let vm = LoopbackVm::new(Mode::Stepped);
    // The type of the field, an array, does not permit 121 bytes.
    let user_defined: [u8; 120] = std::array::from_fn(|at| at as u8 + 1);
    let flags = OfferFlags::ENUMERATE_DEVICE_INTERFACE
        | OfferFlags::NAMED_PIPE_MODE
        | OfferFlags::LOOPBACK_OFFER;
    let full = offer(0).flags(flags).mmio_megabytes(8).user_defined(user_defined);
    vm.offer_served(full, echo).unwrap();
    vm.offer_served(offer(1), echo).unwrap();
    let client = client(&vm);
    let seen = common::offers(&client);
    assert_eq!((seen[0].class, seen[0].instance), (CLASS, common::instance(0)));
    assert_eq!((seen[0].flags.bits(), seen[1].flags.bits()), (0x111, 0));
    assert_eq!((seen[0].mmio_megabytes, seen[1].mmio_megabytes), (8, 0));
    assert_eq!(seen[0].user_defined, user_defined);
    assert_eq!((seen[0].subchannel, seen[0].relid, seen[1].relid), (0, 1, 2));
}

#[test]
fn test_kmcl_23_quota_blocks_delivery_until_a_completion() {
    let vm = LoopbackVm::new(Mode::Stepped);
    let (_, opened) = vm.offer_manual(offer(0)).unwrap();
    let mut client = client(&vm);
    let recorder = Recorder { hold: true, ..Recorder::default() };
    let id = client.allocate();
    let mut channel = client.channel(id);
    channel.init_set_target_pnp(CLASS, None).unwrap();
    channel.init_set_driver(Box::new(recorder.clone())).unwrap();
    assert_eq!(channel.set_transaction_quota(0), Err(Error::Parameter(2, "a quota of 0")));
    channel.set_transaction_quota(1).unwrap();
    channel.enable().unwrap();
    client.wait_for_open(id).unwrap();
    recorder.log();
    let mut host = opened.take().unwrap();
    for number in 1..=4_u8 {
        write(&mut host, &OutPacket::request(u64::from(number), &[&[number; 8]]));
    }
    client.run_until_idle();
    assert_eq!(recorder.log(), ["packet 1", "batch of 1"]);
    client.channel(id).set_transaction_quota(2).unwrap();
    client.run_until_idle();
    assert_eq!(recorder.log(), [""; 0], "raising the quota alone restarts nothing");
    let token = recorder.held().unwrap();
    client.channel(id).packet_complete(token, b"").unwrap();
    client.run_until_idle();
    assert_eq!(recorder.log(), ["packet 2", "packet 3", "batch of 2"]);
    client.channel(id).set_transaction_quota(1).unwrap();
    let token = recorder.held().unwrap();
    client.channel(id).packet_complete(token, b"").unwrap();
    client.run_until_idle();
    assert_eq!(recorder.log(), [""; 0], "lowered below what is outstanding");
    let token = recorder.held().unwrap();
    client.channel(id).packet_complete(token, b"").unwrap();
    client.run_until_idle();
    assert_eq!(recorder.log(), ["packet 4", "batch of 1"]);
}
