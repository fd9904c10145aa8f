//! Random lives of several channels, in both modes. For any order of opening, sharing, sending,
//! pausing, rescinding, rebooting and crashing, every call ends, every packet ends once, and no
//! resource is left.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{CLASS, TestClient, client, complete, instance, offer, take_packets};
use proptest::prelude::*;
use vmbus_client::{
    ChannelId, ChannelState, Error, GpadlFlags, GpadlHandle, PacketObject, SendFlags, Waiting,
};
use vmbus_gpadl::GpadlView;
use vmbus_host::core::ChannelKey;
use vmbus_host::{Channel, OfferError, OpenError, ReadWrite};
use vmbus_loopback::{Flow, Handler, Layout, LoopbackVm, Mode};

const DEVICES: usize = 3;
const WAIT: SendFlags = SendFlags::WAIT_FOR_COMPLETION;
/// First words of requests to the device.
const MAP: u32 = 1;
const UNMAP: u32 = 2;
const ECHO: u32 = 3;

#[derive(Clone, Debug)]
enum Op {
    Open(usize),
    Disable(usize),
    Toggle(usize),
    Create(usize, usize),
    Map(usize),
    Delete(usize),
    Send(usize, u16, u16),
    Rescind(usize),
    Add(usize),
    Reboot,
    Crash,
}

fn op() -> impl Strategy<Value = Op> {
    let device = 0..DEVICES;
    prop_oneof![
        4 => device.clone().prop_map(Op::Open),
        2 => device.clone().prop_map(Op::Disable),
        2 => device.clone().prop_map(Op::Toggle),
        4 => (device.clone(), 1..300_usize).prop_map(|(device, pages)| Op::Create(device, pages)),
        4 => device.clone().prop_map(Op::Map),
        3 => device.clone().prop_map(Op::Delete),
        6 => (device.clone(), 1..200_u16, 0..600_u16)
            .prop_map(|(device, count, size)| Op::Send(device, count, size)),
        1 => device.clone().prop_map(Op::Rescind),
        2 => device.prop_map(Op::Add),
        1 => Just(Op::Reboot),
        1 => Just(Op::Crash),
    ]
}

/// Maps and unmaps on request, and echoes all other packets. While the outgoing ring is full, it
/// leaves packets in the incoming ring.
fn device(_: &Channel) -> Result<Handler, OpenError> {
    let mut views: BTreeMap<u32, GpadlView> = BTreeMap::new();
    Ok(Box::new(move |channel| {
        if channel.is_closing() {
            views.clear();
            return Flow::Stop;
        }
        let Ok(packets) = take_packets(channel) else { return Flow::Stop };
        for packet in packets {
            let word =
                |at: usize| u32::from_le_bytes(packet.payload[at..at + 4].try_into().unwrap());
            let id = word(4);
            let good = match word(0) {
                MAP => channel.map_gpadl(id, ReadWrite).map(|view| views.insert(id, view)).is_ok(),
                UNMAP => views.remove(&id).is_some(),
                _ => true,
            };
            complete(channel, packet.transaction_id, &u64::from(good).to_le_bytes());
        }
        Flow::Wait
    }))
}

#[derive(Default)]
struct Device {
    key: Option<ChannelKey>,
    open: Option<ChannelId>,
    paused: bool,
    /// The handle, and whether the device has it mapped.
    gpadls: Vec<(GpadlHandle, bool)>,
}

struct World {
    vm: LoopbackVm,
    client: Option<TestClient>,
    devices: [Device; DEVICES],
    sent: u64,
    ended: Arc<AtomicU64>,
}

impl World {
    fn new(mode: Mode) -> Self {
        let vm = LoopbackVm::new(mode);
        let mut world =
            Self { vm, client: None, devices: Default::default(), sent: 0, ended: Arc::default() };
        for number in 0..DEVICES {
            world.add(number);
        }
        world.client = Some(client(&world.vm));
        world
    }

    fn client(&mut self) -> &mut TestClient {
        self.client.as_mut().unwrap()
    }

    fn add(&mut self, number: usize) {
        if self.devices[number].key.is_some() {
            return;
        }
        let key = loop {
            match self.vm.offer_served(offer(number as u8), device) {
                Ok(key) => break key,
                // The guest has not released the device before, and may not even have seen it.
                Err(OfferError::InstanceInUse(_)) => {
                    self.client().poll();
                    std::thread::yield_now();
                }
                Err(error) => panic!("{error}"),
            }
        };
        self.devices[number].key = Some(key);
    }

    /// Sends a request. The answer is 1 for done, 0 for refused.
    fn ask(&mut self, id: ChannelId, request: u32, gpadl: GpadlHandle) -> bool {
        let bytes = [request, gpadl.id()].map(u32::to_le_bytes).concat();
        let mut answer = [9; 8];
        let mut channel = self.client().channel(id);
        let len =
            channel.send_synchronous_request(&bytes, None, WAIT, &mut answer, Waiting::Forever);
        assert_eq!(len, Ok(8));
        u64::from_le_bytes(answer) == 1
    }

    fn start(&mut self, number: usize) {
        if let Some(id) = self.devices[number].open
            && std::mem::take(&mut self.devices[number].paused)
        {
            self.client().channel(id).start().unwrap();
        }
    }

    /// Makes the device unmap all GPADLs, so that deleting them cannot hang.
    fn unmap_all(&mut self, number: usize) {
        let Some(id) = self.devices[number].open else { return };
        for at in 0..self.devices[number].gpadls.len() {
            if let (handle, true) = self.devices[number].gpadls[at] {
                self.start(number);
                assert!(self.ask(id, UNMAP, handle));
                self.devices[number].gpadls[at].1 = false;
            }
        }
    }

    fn disable(&mut self, number: usize) {
        self.unmap_all(number);
        if let Some(id) = self.devices[number].open.take() {
            self.client().channel(id).disable().unwrap();
            self.client().channel(id).cleanup().unwrap();
            self.devices[number].gpadls.clear();
            self.devices[number].paused = false;
        }
    }

    fn forget_channels(&mut self) {
        for device in &mut self.devices {
            (device.open, device.paused) = (None, false);
            device.gpadls.clear();
        }
        // Their packets ended with the client that sent them.
        self.sent = 0;
        self.ended = Arc::default();
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Open(number) => self.open(number),
            Op::Disable(number) => self.disable(number),
            Op::Toggle(number) => {
                let Some(id) = self.devices[number].open else { return };
                if self.devices[number].paused {
                    self.start(number);
                } else {
                    self.client().channel(id).pause().unwrap();
                    self.devices[number].paused = true;
                }
            }
            Op::Create(number, pages) => {
                let Some(id) = self.devices[number].open else { return };
                let pages = self.vm.pages().allocate(pages, Layout::HalfContiguous).unwrap();
                let handle = self
                    .client()
                    .channel(id)
                    .create_gpadl_from_pfn_list(GpadlFlags::empty(), &pages);
                self.devices[number].gpadls.push((handle.unwrap(), false));
                // Only the list matters here, so the pages are free for other uses.
                self.vm.pages().free(&pages);
            }
            Op::Map(number) => {
                let (Some(id), Some(&(handle, mapped))) =
                    (self.devices[number].open, self.devices[number].gpadls.last())
                else {
                    return;
                };
                self.start(number);
                assert_eq!(self.ask(id, MAP, handle), !mapped, "one mapping at a time");
                self.devices[number].gpadls.last_mut().unwrap().1 = true;
            }
            Op::Delete(number) => {
                self.unmap_all(number);
                if let (Some(id), Some((handle, _))) =
                    (self.devices[number].open, self.devices[number].gpadls.pop())
                {
                    self.client().channel(id).delete_gpadl(handle).unwrap();
                }
            }
            Op::Send(number, count, size) => self.send(number, count, size),
            Op::Rescind(number) => self.rescind(number),
            Op::Add(number) => self.add(number),
            Op::Reboot => {
                (0..DEVICES).for_each(|number| self.disable(number));
                self.client.take().unwrap().unload().unwrap();
                assert!(self.vm.inspect().gpadls.is_empty());
                self.forget_channels();
                self.client = Some(client(&self.vm));
            }
            Op::Crash => {
                drop(self.client.take().unwrap().abandon());
                self.forget_channels();
                self.client = Some(client(&self.vm));
            }
        }
    }

    fn open(&mut self, number: usize) {
        if self.devices[number].open.is_some() {
            return;
        }
        let there = self.devices[number].key.is_some();
        let client = self.client();
        if there {
            // The offer of a device that was just added may not have arrived yet.
            while !client.offers().any(|offer| offer.instance == instance(number as u8)) {
                assert!(client.wait());
            }
            let id = client.open(CLASS, Some(instance(number as u8)), None).unwrap();
            assert_eq!(client.channel(id).state(), ChannelState::Started);
            self.devices[number].open = Some(id);
        } else {
            assert!(!client.offers().any(|offer| offer.instance == instance(number as u8)));
        }
    }

    fn send(&mut self, number: usize, count: u16, size: u16) {
        let Some(id) = self.devices[number].open else { return };
        for _ in 0..count {
            let mut bytes = vec![0; 8 + usize::from(size)];
            bytes[..4].copy_from_slice(&ECHO.to_le_bytes());
            let ended = Arc::clone(&self.ended);
            let packet = PacketObject::with_routine(move |_, answer| {
                assert!(matches!(
                    answer.result,
                    Ok([1, ..]) | Err(Error::Cancelled | Error::Removed)
                ));
                ended.fetch_add(1, Ordering::Relaxed);
            });
            self.client().channel(id).send(packet, &bytes, None, WAIT).unwrap();
            self.sent += 1;
        }
        self.client().poll();
    }

    fn rescind(&mut self, number: usize) {
        let Some(key) = self.devices[number].key.take() else { return };
        self.vm.bus().rescind(key);
        let open = self.devices[number].open.take();
        let client = self.client.as_mut().unwrap();
        while client.offers().any(|offer| offer.instance == instance(number as u8))
            || open.is_some_and(|id| client.channel(id).failure().is_none())
        {
            assert!(client.wait());
        }
        if let Some(id) = open {
            assert_eq!(client.channel(id).failure(), Some(Error::Removed));
            client.channel(id).cleanup().unwrap();
        }
        self.devices[number].gpadls.clear();
        self.devices[number].paused = false;
    }

    /// Checks that all sent packets end, and that a machine without a guest holds none of its
    /// resources.
    fn end(mut self) {
        (0..DEVICES).for_each(|number| self.start(number));
        while self.ended.load(Ordering::Relaxed) < self.sent {
            assert!(
                self.client().wait(),
                "{} of {} ended",
                self.ended.load(Ordering::Relaxed),
                self.sent
            );
        }
        (0..DEVICES).for_each(|number| self.disable(number));
        let client = self.client.take().unwrap();
        assert_eq!((client.stats().stray_completions, client.stats().unknown_messages), (0, 0));
        client.unload().unwrap();
        assert_eq!(self.ended.load(Ordering::Relaxed), self.sent, "no packet ends twice");
        let report = self.vm.inspect();
        assert!(report.gpadls.is_empty() && report.gpadls_arriving == 0);
        assert!(report.channels.iter().all(|channel| channel.incoming.is_none()));
        assert!(self.vm.synic().doorbells().is_empty());
    }
}

fn live(mode: Mode, ops: &[Op]) {
    let mut world = World::new(mode);
    for op in ops {
        world.apply(op);
    }
    world.end();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn test_loopback_any_life_when_stepped_ends_with_nothing_left(
        ops in proptest::collection::vec(op(), 1..60),
    ) {
        live(Mode::Stepped, &ops);
    }

    #[test]
    fn test_loopback_any_life_with_threads_ends_with_nothing_left(
        ops in proptest::collection::vec(op(), 1..60),
    ) {
        live(Mode::Threaded, &ops);
    }
}
