//! kmcl.md 21 and vmbus-core 74: a bus is saved, and another one resumes over the same guest
//! memory.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use common::raw::{FromHost, RawGuest, range_words};
use common::teller::{ANSWER_ALL, Books, FLOOD, KEEP, MAP, Teller, WRITE, wish};
use common::{BOTH_MODES, CLASS, client, offer};
use vmbus_client::{ChannelState, PacketObject, SendFlags};
use vmbus_host::core::ChannelState as HostState;
use vmbus_host::{RestoreError, SaveError, SavedBus};
use vmbus_loopback::{Layout, LoopbackVm, Mode};
use vmbus_protocol::message::{ChannelOnly, MessageType};
use vmbus_ring::{OutPacket, PacketKind};
use zerocopy::little_endian::U32;

use FromHost::{Created, Other, Rescind, Torndown};

const RING: u32 = 0x77;
const ID: u32 = 0xE1E10;
const FLOODED: u32 = 1500;

/// A guest with an open teller that has three requests outstanding, a GPADL mapped, and far more
/// packets to send than fit into the ring.
struct Busy {
    guest: RawGuest,
    relid: u32,
    rings: vmbus_loopback::LoopbackRings,
    ring_pages: Vec<u64>,
    shared: Vec<u64>,
}

impl Busy {
    fn new(make: fn(&LoopbackVm, vmbus_host::Offer) -> Teller) -> (Self, Teller) {
        let vm = LoopbackVm::new(Mode::Stepped);
        let teller = make(&vm, offer(0));
        vm.offer(teller.clone()).unwrap();
        let guest = RawGuest::in_vm(vm, 0);
        let relid = guest.relid(0);
        let (ring_pages, rings) = guest.ask_open(0, RING);
        assert_eq!(guest.heard().len(), 2);
        let shared = guest.vm.pages().allocate(2, Layout::Scattered).unwrap();
        guest.describe(relid, ID, &[(100, 5000, &shared)]);
        assert_eq!(guest.heard(), [Created(relid, ID, 0)]);
        let mut busy = Self { guest, relid, rings, ring_pages, shared };
        for id in [11, 12, 13] {
            busy.send(&OutPacket::request(id, &[&wish(KEEP, 0)]));
        }
        busy.say(MAP, ID);
        busy.say(WRITE, 1);
        busy.say(FLOOD, FLOODED);
        busy.guest.vm.run_until_idle();
        let books = teller.books.lock().unwrap().clone();
        assert_eq!((books.requests.len(), books.mapped), (3, Some(ID)));
        assert!(
            books.queue.len() > 100,
            "the ring is full: {} packets are left",
            books.queue.len()
        );
        assert_eq!(busy.guest.read(busy.shared[0], 100, 4), 1_u32.to_le_bytes());
        (busy, teller)
    }

    fn send(&mut self, packet: &OutPacket<'_>) {
        let mut batch = self.rings.outgoing.batch().unwrap();
        batch.write(packet).unwrap();
        let _ = batch.commit();
        let _ = self.guest.vm.signal_event(self.guest.offers[0].connection_id.get(), 0);
    }

    fn say(&mut self, what: u32, argument: u32) {
        self.send(&OutPacket::in_band(0, &[&wish(what, argument)]));
    }

    /// Takes all packets in the ring, and signals the host if it waits for the space.
    fn take(&mut self) -> Vec<(PacketKind, u64)> {
        let mut seen = Vec::new();
        let mut batch = self.rings.incoming.batch().unwrap();
        while let Some(packet) = batch.next().unwrap() {
            seen.push((packet.kind(), packet.transaction_id()));
        }
        if batch.commit() {
            let _ = self.guest.vm.signal_event(self.guest.offers[0].connection_id.get(), 0);
        }
        seen
    }

    fn release(&self) {
        self.guest.post(MessageType::RelidReleased, &ChannelOnly { relid: U32::new(self.relid) });
    }
}

/// Quiesces the VM, saves it as text, and replaces its bus by one without devices.
fn save(vm: &LoopbackVm) -> SavedBus {
    vm.pause();
    let text = serde_json::to_string(&vm.bus().save().unwrap()).unwrap();
    vm.replace_bus();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn test_kmcl_21_guest_continues_with_half_a_list_a_mapping_a_full_ring_and_requests_in_flight() {
    let (mut busy, old) = Busy::new(Teller::new);
    let (vm, relid) = (busy.guest.vm.clone(), busy.relid);
    let pages: Vec<u64> = (2000..2100).collect();
    let words = range_words(&[(0, 100 * 4096, &pages)]);
    busy.guest.header(relid, ID + 1, (words.len() * 8) as u16, 1, &words[..20]);
    busy.guest.body(ID + 1, &words[20..40]);
    // Two answers wait for the guest.
    busy.guest.describe(relid, ID + 2, &[(0, 4096, &[3000])]);
    busy.guest.tear_down(relid, ID + 2);
    let before = vm.inspect();

    let saved = save(&vm);
    let teller = Teller::new(&vm, offer(0));
    vm.offer(teller.clone()).unwrap();
    vm.bus().restore(&saved).unwrap();
    assert_eq!(*teller.books.lock().unwrap(), *old.books.lock().unwrap());
    vm.resume();

    let after = vm.inspect();
    assert_eq!((&after.gpadls, after.gpadls_arriving), (&before.gpadls, 1));
    assert_eq!(after.channels[0].channel, before.channels[0].channel);
    assert_eq!(
        busy.guest.heard(),
        [Created(relid, ID + 2, 0), Torndown(ID + 2)],
        "what had waited, and nothing else"
    );
    for part in words[40..].chunks(28) {
        busy.guest.body(ID + 1, part);
    }
    assert_eq!(busy.guest.heard(), [Created(relid, ID + 1, 0)]);

    // All numbers arrive, once and in order, through the ring that was full. Then the answers to
    // earlier requests arrive.
    busy.say(ANSWER_ALL, 0);
    busy.say(WRITE, 2);
    let mut seen = Vec::new();
    while seen.len() < FLOODED as usize + 3 {
        vm.run_until_idle();
        let now = busy.take();
        assert!(!now.is_empty(), "stalled after {}", seen.len());
        seen.extend(now);
    }
    let numbers = (0..u64::from(FLOODED)).map(|number| (PacketKind::InBand, number));
    let answers = [11, 12, 13].map(|id| (PacketKind::Completion, id));
    assert!(seen.iter().copied().eq(numbers.chain(answers)));
    assert_eq!(
        busy.guest.read(busy.shared[0], 100, 4),
        2_u32.to_le_bytes(),
        "the mapping is there again"
    );

    // The channel can still be closed in the normal way.
    busy.guest.tear_down(relid, ID);
    assert_eq!(busy.guest.heard(), [], "mapped");
    vm.run_until_idle();
    assert_eq!(busy.guest.heard(), [Torndown(ID)]);
    busy.guest.close(relid);
    busy.guest.tear_down(relid, RING);
    vm.run_until_idle();
    assert_eq!(busy.guest.heard(), [Torndown(RING)]);
    assert_eq!(vm.inspect().channels[0].channel.state, HostState::Closed);
    let _ = busy.guest.ask_open(0, RING);
    assert_eq!(busy.guest.heard(), [Created(relid, RING, 0), FromHost::Opened(relid, relid, 0)]);
}

#[test]
fn test_kmcl_21_device_that_cannot_continue_is_rescinded_and_offered_again() {
    for refuses_to_save in [true, false] {
        let make = if refuses_to_save { Teller::forgetful } else { Teller::new };
        let (busy, _) = Busy::new(make);
        let (vm, relid) = (busy.guest.vm.clone(), busy.relid);
        busy.guest.header(relid, ID + 1, 800, 1, &[800 << 9]);
        let mut saved = save(&vm);
        if !refuses_to_save {
            // The channel has a state, but one that the device does not know.
            let mut json = serde_json::to_value(&saved).unwrap();
            json["channels"][0]["device"] = serde_json::json!([1, 2, 3]);
            saved = serde_json::from_value(json).unwrap();
        }
        vm.offer(Teller::new(&vm, offer(0))).unwrap();
        vm.bus().restore(&saved).unwrap();
        vm.resume();
        let heard = busy.guest.heard();
        let [Created(of, id, status), Rescind(rescinded)] = heard[..] else { panic!("{heard:?}") };
        assert_eq!((of, id, rescinded), (relid, ID + 1, relid));
        assert_ne!(status, 0, "its list will never be complete");
        assert!(vm.inspect().gpadls.is_empty(), "nothing of the guest's is held");
        busy.guest.close(relid);
        assert_eq!(busy.guest.heard(), []);
        busy.release();
        assert_eq!(busy.guest.heard(), [Other(MessageType::OfferChannel)]);
        let _ = busy.guest.ask_open(0, RING);
        assert_eq!(
            busy.guest.heard(),
            [Created(relid, RING, 0), FromHost::Opened(relid, relid, 0)]
        );
    }
}

#[test]
fn test_restore_without_a_device_rescinds_it_and_offers_the_ones_that_came() {
    let (busy, _) = Busy::new(Teller::new);
    let vm = busy.guest.vm.clone();
    let saved = save(&vm);
    vm.offer(Teller::new(&vm, offer(1))).unwrap();
    vm.bus().restore(&saved).unwrap();
    vm.resume();
    assert_eq!(busy.guest.heard(), [Rescind(busy.relid), Other(MessageType::OfferChannel)]);
    busy.release();
    assert_eq!(busy.guest.heard(), []);
    let instances: Vec<_> =
        vm.inspect().channels.iter().map(|channel| channel.channel.instance).collect();
    assert_eq!(instances, [common::instance(1)]);
}

// Design 6: a restored VM whose vCPUs run before its clock. For any order of the machine's restore,
// the bus waits for the resume.
#[test]
fn test_restored_bus_sends_nothing_before_it_is_resumed() {
    let (mut busy, _) = Busy::new(Teller::new);
    let (vm, relid) = (busy.guest.vm.clone(), busy.relid);
    busy.guest.describe(relid, ID + 2, &[(0, 4096, &[3000])]);
    let saved = save(&vm);
    vm.synic().take_events(&mut |_| {});
    let ring = busy.guest.read(busy.ring_pages[4], 0, 12);
    vm.offer(Teller::new(&vm, offer(0))).unwrap();
    vm.bus().restore(&saved).unwrap();
    assert!(vm.bus().is_paused());
    // The guest runs already, and sends requests to the host.
    busy.guest.tear_down(relid, ID + 2);
    busy.take();
    busy.say(ANSWER_ALL, 0);
    vm.run_until_idle();
    assert_eq!(busy.guest.heard(), []);
    vm.synic().take_events(&mut |flag| panic!("event {flag}"));
    assert_eq!(busy.guest.read(busy.ring_pages[4], 0, 4), ring[..4], "nothing was written");
    vm.resume();
    assert!(vm.synic().take_event(relid as u16), "every open channel is signalled");
    assert_eq!(busy.guest.heard(), [Created(relid, ID + 2, 0), Torndown(ID + 2)]);
}

#[test]
fn test_pause_and_resume_without_a_restore_loses_nothing() {
    let (mut busy, _) = Busy::new(Teller::new);
    let vm = busy.guest.vm.clone();
    vm.pause();
    vm.pause();
    busy.say(ANSWER_ALL, 0);
    vm.run_until_idle();
    vm.resume();
    vm.resume();
    let mut seen = 0;
    while seen < FLOODED as usize + 3 {
        vm.run_until_idle();
        let now = busy.take().len();
        assert!(now != 0, "stalled after {seen}");
        seen += now;
    }
}

#[test]
fn test_save_while_running_and_restore_in_the_wrong_place_are_refused() {
    let (busy, _) = Busy::new(Teller::new);
    let vm = busy.guest.vm.clone();
    assert_eq!(vm.bus().save(), Err(SaveError::Running));
    vm.pause();
    let saved = vm.bus().save().unwrap();
    assert_eq!(vm.bus().restore(&saved), Err(RestoreError::NotFresh));
    vm.replace_bus();
    let mut other = offer(0);
    other.class = common::instance(9);
    vm.offer(Teller::new(&vm, other)).unwrap();
    assert_eq!(vm.bus().restore(&saved), Err(RestoreError::Class(common::instance(0))));
    let mut json = serde_json::to_value(&saved).unwrap();
    json["format"] = 2.into();
    let future = serde_json::from_value(json).unwrap();
    assert_eq!(vm.bus().restore(&future), Err(RestoreError::Format(2)));
    assert!(!vm.bus().is_paused(), "a bus that could not be restored is as it was");
}

#[test]
fn test_restore_of_a_reset_that_waited_for_devices_ends_it() {
    let (busy, _) = Busy::new(Teller::new);
    let vm = busy.guest.vm.clone();
    busy.guest.post(MessageType::Unload, &());
    assert_eq!(busy.guest.heard(), [], "the device has not let go");
    let saved = save(&vm);
    vm.offer(Teller::new(&vm, offer(0))).unwrap();
    vm.bus().restore(&saved).unwrap();
    vm.resume();
    assert_eq!(busy.guest.heard(), [Other(MessageType::UnloadResponse)]);
    assert!(vm.synic().doorbells().is_empty());
}

#[test]
fn test_restore_of_a_closing_channel_closes_it_and_answers_what_waited() {
    let (busy, _) = Busy::new(Teller::new);
    let (vm, relid) = (busy.guest.vm.clone(), busy.relid);
    busy.guest.close(relid);
    busy.guest.tear_down(relid, RING);
    busy.guest.tear_down(relid, ID);
    assert_eq!(busy.guest.heard(), [], "the device has not let go");
    let saved = save(&vm);
    vm.offer(Teller::new(&vm, offer(0))).unwrap();
    vm.bus().restore(&saved).unwrap();
    vm.resume();
    let mut heard = busy.guest.heard();
    heard.sort_by_key(|message| format!("{message:?}"));
    assert_eq!(heard, [Torndown(RING), Torndown(ID)]);
    let _ = busy.guest.ask_open(0, RING);
    assert_eq!(busy.guest.heard(), [Created(relid, RING, 0), FromHost::Opened(relid, relid, 0)]);
}

// The whole procedure, with a client that behaves like a Windows driver and with workers of every
// kind.
#[test]
fn test_kmcl_21_client_continues_without_noticing() {
    for mode in BOTH_MODES {
        let vm = LoopbackVm::new(mode);
        let teller = Teller::new(&vm, offer(0));
        vm.offer(teller.clone()).unwrap();
        let mut client = client(&vm);
        let id = client.open(CLASS, None, None).unwrap();
        let (ended, order) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        for number in 0..3_u32 {
            let (ended, order) = (Arc::clone(&ended), Arc::clone(&order));
            let packet = PacketObject::with_routine(move |_, answer| {
                assert!(answer.result.is_ok());
                order.lock().unwrap().push(number);
                ended.fetch_add(1, Ordering::SeqCst);
            });
            client
                .channel(id)
                .send(packet, &wish(KEEP, 0), None, SendFlags::WAIT_FOR_COMPLETION)
                .unwrap();
        }
        for round in 0..3 {
            let kept = |books: &Mutex<Books>| books.lock().unwrap().requests.len();
            while round == 0 && kept(&teller.books) < 3 {
                vm.step();
                std::thread::yield_now();
            }
            let saved = save(&vm);
            vm.offer(Teller::new(&vm, offer(0))).unwrap();
            vm.bus().restore(&saved).unwrap();
            vm.resume();
        }
        client
            .channel(id)
            .send(PacketObject::new(), &wish(ANSWER_ALL, 0), None, SendFlags::empty())
            .unwrap();
        while ended.load(Ordering::SeqCst) < 3 {
            assert!(client.wait(), "stalled");
        }
        assert_eq!(*order.lock().unwrap(), [0, 1, 2]);
        assert_eq!(client.channel(id).state(), ChannelState::Started);
        client.channel(id).disable().unwrap();
        assert!(vm.inspect().gpadls.is_empty());
    }
}

/// Every number, text and flag of a saved bus is replaced by an invalid value. The result is an
/// error, or a bus that works. It is never a panic.
#[test]
fn test_restore_of_a_damaged_bus_is_an_error_or_harmless() {
    let (busy, _) = Busy::new(Teller::new);
    let (vm, relid) = (busy.guest.vm.clone(), busy.relid);
    busy.guest.header(relid, ID + 1, 800, 1, &[800 << 9]);
    busy.guest.describe(relid, ID + 2, &[(0, 4096, &[3000])]);
    busy.guest.tear_down(relid, ID);
    let saved = serde_json::to_value(save(&vm)).unwrap();
    let mut paths = Vec::new();
    leaves(&saved, &mut String::new(), &mut paths);
    assert!(paths.len() > 100);
    let (mut refused, mut lived) = (0, 0);
    for path in paths {
        for bad in bad_values() {
            let mut json = saved.clone();
            *json.pointer_mut(&path).unwrap() = bad.clone();
            let Ok(damaged) = serde_json::from_value::<SavedBus>(json) else {
                refused += 1;
                continue;
            };
            vm.offer(Teller::new(&vm, offer(0))).unwrap();
            match vm.bus().restore(&damaged) {
                Err(_) => refused += 1,
                Ok(()) => {
                    lived += 1;
                    vm.resume();
                    vm.run_until_idle();
                    busy.guest
                        .post(MessageType::RelidReleased, &ChannelOnly { relid: U32::new(relid) });
                    vm.run_until_idle();
                    busy.guest.post(MessageType::Unload, &());
                    vm.run_until_idle();
                    let heard = busy.guest.heard();
                    assert_eq!(
                        heard.last(),
                        Some(&Other(MessageType::UnloadResponse)),
                        "{path} {bad}"
                    );
                    vm.pause();
                }
            }
            vm.replace_bus();
        }
    }
    assert!(refused > 300 && lived > 100, "{refused} refused, {lived} lived");
}

fn bad_values() -> Vec<serde_json::Value> {
    use serde_json::json;
    vec![
        json!(0),
        json!(1),
        json!(2),
        json!(2048),
        json!(65_535),
        json!(u32::MAX),
        json!(u64::MAX),
        json!(-1),
        json!(null),
        json!(true),
        json!("Offered"),
        json!("Revoked"),
        json!("Unoffered"),
        json!({"Closing": {"then": "Reset"}}),
        json!({"Draining": {"then": "Rescind"}}),
        json!([]),
    ]
}

/// Collects the paths of all values, but of at most 6 items of a list.
fn leaves(value: &serde_json::Value, path: &mut String, into: &mut Vec<String>) {
    let len = path.len();
    into.push(path.clone());
    match value {
        serde_json::Value::Object(fields) => {
            for (name, field) in fields {
                path.push('/');
                path.push_str(name);
                leaves(field, path, into);
                path.truncate(len);
            }
        }
        serde_json::Value::Array(items) => {
            for (index, item) in items.iter().enumerate().take(6) {
                path.push_str(&format!("/{index}"));
                leaves(item, path, into);
                path.truncate(len);
            }
        }
        _ => {}
    }
}
