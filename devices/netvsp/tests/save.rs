//! A card is paused, saved, and restored in another process over the same backend. No frame is lost
//! or repeated, in either direction.

mod guest;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex};

use guest::queues::flow;
use guest::*;
use synthvm_net::{
    Backend, Counters, Frame as NetFrame, LinkState, Offloads, Pieces, Queue, ReceiveError,
    Received, SendError, VnetHeader,
};
use synthvm_netvsp::NetworkCard;
use vmbus_device::InlineWorkers;
use vmbus_host::SavedBus;
use vmbus_loopback::bare::{GuestRange, HostPacket};

const FOR_FRAMES: usize = 64 * 4096 / SUB_ALLOCATION as usize - 16;

/// A backend that keeps its frames while it has no queue.
#[derive(Debug, Default)]
struct Store {
    frames: Arc<Frames>,
    queues: usize,
}

#[derive(Debug, Default)]
struct Frames {
    sent: Mutex<Vec<Vec<u8>>>,
    waiting: Mutex<VecDeque<Vec<u8>>>,
}

struct StoreQueue(Arc<Frames>);

impl Backend for Store {
    fn queues(&self) -> usize {
        self.queues
    }

    fn offloads(&self) -> Offloads {
        Offloads::all()
    }

    fn mtu_limit(&self) -> u32 {
        9000
    }

    fn queue(&self, _: usize) -> io::Result<Box<dyn Queue>> {
        Ok(Box::new(StoreQueue(Arc::clone(&self.frames))))
    }

    fn link(&self) -> LinkState {
        LinkState::Up
    }

    fn set_receive_offloads(&self, _: Offloads) -> io::Result<()> {
        Ok(())
    }
}

impl Queue for StoreQueue {
    fn send(&mut self, frame: &NetFrame<'_>) -> Result<(), SendError> {
        let mut bytes = vec![0; frame.pieces.len()];
        frame.pieces.copy_to(0, &mut bytes);
        self.0.sent.lock().unwrap().push(bytes);
        Ok(())
    }

    fn receive(&mut self, space: &Pieces<'_>) -> Result<Option<Received>, ReceiveError> {
        let Some(bytes) = self.0.waiting.lock().unwrap().pop_front() else { return Ok(None) };
        let length = space.copy_from(0, &bytes);
        Ok(Some(Received { offset: 0, length, header: VnetHeader::default() }))
    }

    fn event(&self) -> Option<RawFd> {
        None
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }
}

/// A machine that moves between processes.
struct Machine {
    guest: NetGuest,
    store: Arc<Store>,
    channels: u16,
}

impl Machine {
    fn new(queues: usize, channels: u16) -> Self {
        let store = Arc::new(Store { queues, ..Store::default() });
        let guest = match channels {
            1 => NetGuest::start(store.clone()),
            _ => NetGuest::start_with_channels(store.clone(), channels),
        };
        Self { guest, store, channels }
    }

    fn save(&self) -> SavedBus {
        self.guest.guest.bus.pause();
        let text = serde_json::to_string(&self.guest.guest.bus.save().unwrap()).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn restore(&mut self, saved: &SavedBus) {
        let inline = InlineWorkers::default();
        let store = Arc::clone(&self.store);
        let card = NetworkCard::with_channels(options(&inline), store, self.channels);
        let bare = &mut self.guest.guest;
        let serve = inline.clone();
        bare.serve = Some(Arc::new(move || serve.serve()));
        bare.replace_bus(vec![Box::new(card)]);
        bare.bus.restore(saved).unwrap();
        let offers = bare.offers.clone();
        for (index, offer) in offers.into_iter().enumerate() {
            let doorbell = self.guest.guest.doorbell(offer);
            let serve = self.guest.guest.serve.clone();
            let channel = self.guest.channel(index);
            (channel.doorbell, channel.serve) = (doorbell, serve);
        }
        self.guest.inline = inline;
        self.guest.guest.bus.resume();
    }

    fn move_on(&mut self) {
        let saved = self.save();
        self.restore(&saved);
    }

    /// Takes the packets of channel `index`: counts their frames, and adds them to `held`. Returns
    /// the number of completions.
    fn take(
        &mut self,
        index: usize,
        frames: &mut HashMap<Vec<u8>, usize>,
        held: &mut Vec<(usize, HostPacket)>,
    ) -> usize {
        let packets = self.guest.take(index);
        self.count(&packets, frames);
        let count = packets.len();
        let before = held.len();
        held.extend(packets.into_iter().filter(|one| one.transfer.is_some()).map(|p| (index, p)));
        count - (held.len() - before)
    }

    /// Counts the frames of `packets` in `frames`.
    fn count(&self, packets: &[HostPacket], frames: &mut HashMap<Vec<u8>, usize>) {
        for packet in packets.iter().filter(|packet| packet.transfer.is_some()) {
            for frame in self.guest.frames(packet) {
                *frames.entry(frame.bytes).or_default() += 1;
            }
        }
    }
}

#[test]
fn test_card_saved_under_traffic_loses_and_repeats_no_frame() {
    for (queues, channels) in [(1, 1), (1, 4), (4, 4)] {
        let mut machine = Machine::new(queues, channels);
        let mut received = HashMap::new();
        let mut held: Vec<(usize, HostPacket)> = Vec::new();
        let (mut to_guest, mut sent, mut completed) = (0_u16, 0_u16, 0);
        // A channel of a shared queue that holds its part of the buffer loses frames: few of them.
        let burst = if queues < usize::from(channels) { 6 } else { 30 };
        for round in 0..20 {
            for _ in 0..burst {
                machine.store.frames.waiting.lock().unwrap().push_back(flow(to_guest));
                to_guest += 1;
            }
            for index in 0..usize::from(channels) {
                for _ in 0..3 {
                    let message = packet(&flow(10_000 + sent), &[]);
                    let guest = &mut machine.guest;
                    // Each message has a page of its own, as some wait for several rounds.
                    let page = REQUEST + u64::from(sent % 1000);
                    guest.channel.poke(page, 0, &message);
                    let memory = [GuestRange::at(page, message.len() as u32)];
                    let nvsp = full(&words(&[107, 0, NO_SECTION, 0]));
                    if guest.channel(index).try_send(sent.into(), &nvsp, &memory) {
                        sent += 1;
                    }
                }
            }
            if round % 3 == 0 {
                machine.guest.inline.serve();
            }
            machine.move_on();
            // The guest reads some channels, and completes only a part.
            for index in 0..usize::from(channels) {
                if (round + index) % 3 == 0 {
                    continue;
                }
                completed += machine.take(index, &mut received, &mut held);
            }
            let half = held.len() / 2;
            for (index, packet) in held.drain(half..) {
                complete_on(machine.guest.channel(index), &packet);
            }
        }
        for _ in 0..100 {
            for (index, packet) in held.drain(..) {
                complete_on(machine.guest.channel(index), &packet);
            }
            machine.guest.inline.serve();
            for index in 0..usize::from(channels) {
                completed += machine.take(index, &mut received, &mut held);
            }
        }
        let sent_frames = machine.store.frames.sent.lock().unwrap().clone();
        let expected: Vec<_> = (0..sent).map(|number| flow(10_000 + number)).collect();
        let mut sorted = [sent_frames.clone(), expected.clone()];
        sorted.iter_mut().for_each(|frames| frames.sort());
        assert!(sorted[0] == sorted[1], "{} of {} frames sent", sent_frames.len(), sent);
        assert_eq!(completed, usize::from(sent));
        let wrong = (0..to_guest).filter(|&number| received.get(&flow(number)) != Some(&1));
        assert_eq!(wrong.count(), 0, "{queues} queues, {channels} channels");
        assert_eq!(received.len(), usize::from(to_guest));
        // Every sub-allocation is free again.
        machine.guest.inline.serve();
        let waiting = &machine.store.frames.waiting;
        (0..2000).for_each(|number| waiting.lock().unwrap().push_back(flow(number)));
        (0..50).for_each(|_| machine.guest.inline.serve());
        let mut frames = HashMap::new();
        for index in 0..usize::from(channels) {
            let packets = machine.guest.take(index);
            machine.count(&packets, &mut frames);
        }
        assert_eq!(frames.len(), FOR_FRAMES / usize::from(channels) * usize::from(channels));
    }
}

#[test]
fn test_restored_card_has_the_guests_settings() {
    let mut machine = Machine::new(1, 2);
    machine.guest.spread(&[1]);
    machine.guest.set(0x0001_010E, &0xD_u32.to_le_bytes());
    machine.move_on();
    assert_eq!(machine.guest.query(0x0001_010E).1, 0xD_u32.to_le_bytes());
    let mut other = flow(2);
    other[5] = 9;
    machine.store.frames.waiting.lock().unwrap().extend([other, flow(1)]);
    machine.guest.inline.serve();
    let packets = machine.guest.take(1);
    let mut frames = HashMap::new();
    machine.count(&packets, &mut frames);
    assert_eq!(frames, HashMap::from([(flow(1), 1)]), "filter and table");
    // INIT was sent already.
    machine.guest.channel.send(5, &full(&words(&[1, 0x60001, 0x60001])), &[]);
    machine.guest.inline.serve();
    assert_eq!(machine.guest.channel.try_receive(), None);
}

#[test]
fn test_restored_card_continues_the_counters_of_all_channels() {
    let mut machine = Machine::new(4, 4);
    for moves in 1..4 {
        for channel in 0..4 {
            assert_eq!(machine.guest.send_on(channel, &packet(&frame(1, 100), &[])), 1);
        }
        machine.move_on();
        let sent = u64::to_le_bytes(4 * moves);
        assert_eq!(machine.guest.query(0x0002_0101).1, sent, "{moves} moves");
    }
}

#[test]
fn test_damaged_state_costs_the_guest_its_channel_and_nothing_else() {
    let mut machine = Machine::new(1, 2);
    machine.store.frames.waiting.lock().unwrap().extend((0..10).map(flow));
    machine.guest.inline.serve();
    let saved = serde_json::to_string(&machine.save()).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&saved).unwrap();
    // The device's state is a list of bytes somewhere in each channel.
    fn damage(value: &mut serde_json::Value) -> usize {
        match value {
            serde_json::Value::Array(items)
                if items.len() > 100 && items.iter().all(|item| item.as_u64() < Some(256)) =>
            {
                items[50] = 255.into();
                1
            }
            serde_json::Value::Array(items) => items.iter_mut().map(damage).sum(),
            serde_json::Value::Object(fields) => fields.values_mut().map(damage).sum(),
            _ => 0,
        }
    }
    assert!(damage(&mut value) > 0, "{saved}");
    let damaged: SavedBus = serde_json::from_value(value).unwrap();
    let inline = InlineWorkers::default();
    let store = Arc::clone(&machine.store);
    let card = NetworkCard::with_channels(options(&inline), store, 2);
    machine.guest.guest.replace_bus(vec![Box::new(card)]);
    machine.guest.guest.bus.restore(&damaged).unwrap();
    machine.guest.guest.bus.resume();
    inline.serve();
}
