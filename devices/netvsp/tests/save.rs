//! A card is paused, saved, and restored in another process over the same backend.

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
use vmbus_loopback::bare::HostPacket;

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
        let guest = NetGuest::start_with_channels(store.clone(), channels);
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
