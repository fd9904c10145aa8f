//! A machine around a `VmBus`: an interrupt controller over plain memory, devices that give their
//! channels to the test, a guest that posts.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};

use vmbus_gpadl::GuestRam;
use vmbus_host::core::ChannelKey;
use vmbus_host::{Channel, Device, HvStatus, Offer, OpenError, Signal, Synic, VmBus};
use vmbus_protocol::Version;
use vmm_sys_util::eventfd::EventFd;

use super::{PORT, Reply, VPS, offer, post, test_ram};

/// The messages and events that reached the guest, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    Message { vp: u32, sint: u8, reply: Reply },
    Event { vp: u32, sint: u8, flag: u16 },
}

#[derive(Default)]
pub struct FakeSynic {
    heard: Mutex<Vec<Heard>>,
    has_heard: Condvar,
    doorbells: Mutex<BTreeMap<u32, EventFd>>,
    unbound: Condvar,
    /// Doorbells stay in user space: the kernel takes none.
    pub refuses_doorbells: AtomicBool,
    gate: Mutex<Option<Gate>>,
}

struct Gate {
    entered: Sender<()>,
    leave: Receiver<()>,
}

/// Holds the thread that delivers the next message, and with it the bus.
pub struct Hold {
    entered: Receiver<()>,
    leave: Sender<()>,
}

impl Hold {
    /// Returns once a thread is held.
    pub fn wait(&self) {
        self.entered.recv().unwrap();
    }

    pub fn release(self) {
        self.leave.send(()).unwrap();
    }
}

impl FakeSynic {
    /// The next message that the bus delivers stops its thread.
    pub fn hold_next_message(&self) -> Hold {
        let (entered, has_entered) = channel();
        let (may_leave, leave) = channel();
        *self.gate.lock().unwrap() = Some(Gate { entered, leave });
        Hold { entered: has_entered, leave: may_leave }
    }

    pub fn take(&self) -> Vec<Heard> {
        std::mem::take(&mut self.heard.lock().unwrap())
    }

    /// HvSignalEvent as the kernel does it: false when the id is not bound.
    pub fn ring(&self, connection_id: u32) -> bool {
        self.doorbells
            .lock()
            .unwrap()
            .get(&connection_id)
            .map(|event| event.write(1).unwrap())
            .is_some()
    }

    /// Waits until `count` messages and events have come since the last [`FakeSynic::take`].
    pub fn wait_for(&self, count: usize) {
        let heard = self.heard.lock().unwrap();
        drop(self.has_heard.wait_while(heard, |heard| heard.len() < count).unwrap());
    }

    /// Waits until no doorbell is bound: the bus takes bindings away after it has answered.
    pub fn wait_until_unbound(&self) {
        let doorbells = self.doorbells.lock().unwrap();
        drop(self.unbound.wait_while(doorbells, |doorbells| !doorbells.is_empty()).unwrap());
    }

    pub fn bound(&self) -> Vec<u32> {
        self.doorbells.lock().unwrap().keys().copied().collect()
    }
}

impl Synic for FakeSynic {
    fn vp_count(&self) -> u32 {
        VPS
    }

    fn post_message(&self, vp: u32, sint: u8, message: &[u8]) {
        let gate = self.gate.lock().unwrap().take();
        if let Some(gate) = gate {
            gate.entered.send(()).unwrap();
            gate.leave.recv().unwrap();
        }
        let reply = Reply::decode(message);
        self.heard.lock().unwrap().push(Heard::Message { vp, sint, reply });
        self.has_heard.notify_all();
    }

    fn discard_messages(&self) {}

    fn signal_event(&self, vp: u32, sint: u8, flag: u16) -> Signal {
        self.heard.lock().unwrap().push(Heard::Event { vp, sint, flag });
        Signal::Raised
    }

    fn bind_doorbell(&self, connection_id: u32, event: &EventFd) -> io::Result<()> {
        if self.refuses_doorbells.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let before = self.doorbells.lock().unwrap().insert(connection_id, event.try_clone()?);
        assert!(before.is_none(), "{connection_id:#x} bound twice");
        Ok(())
    }

    fn unbind_doorbell(&self, connection_id: u32, _event: &EventFd) {
        self.doorbells.lock().unwrap().remove(&connection_id);
        self.unbound.notify_all();
    }
}

type OnOpen = Box<dyn FnMut(Channel) -> Result<(), OpenError> + Send>;

/// A device that a test controls.
pub struct TestDevice {
    offer: Offer,
    on_open: OnOpen,
}

impl TestDevice {
    pub fn new(
        number: u32,
        on_open: impl FnMut(Channel) -> Result<(), OpenError> + Send + 'static,
    ) -> Box<Self> {
        Box::new(Self { offer: offer(number), on_open: Box::new(on_open) })
    }

    /// A device that hands its channels to the test.
    pub fn handing_over(number: u32) -> (Box<Self>, Receiver<Channel>) {
        let (sender, receiver) = channel();
        let device = Self::new(number, move |channel| {
            sender.send(channel).unwrap();
            Ok(())
        });
        (device, receiver)
    }
}

impl Device for TestDevice {
    fn offer(&self) -> Offer {
        self.offer.clone()
    }

    fn open(&mut self, channel: Channel) -> Result<(), OpenError> {
        (self.on_open)(channel)
    }
}

pub struct Machine {
    pub bus: VmBus,
    pub synic: Arc<FakeSynic>,
    pub ram: GuestRam,
}

impl Machine {
    pub fn new() -> Self {
        let (ram, synic) = (test_ram(), Arc::new(FakeSynic::default()));
        Self { bus: VmBus::new(ram.clone(), synic.clone()), synic, ram }
    }

    /// Returns a machine with one device that hands its channels to the test, and a guest that has
    /// the device's offer: relid 1.
    pub fn with_device() -> (Self, Receiver<Channel>, ChannelKey) {
        let machine = Self::new();
        let (device, channels) = TestDevice::handing_over(0);
        let key = machine.bus.offer(device).unwrap();
        machine.connect();
        (machine, channels, key)
    }

    pub fn connect(&self) {
        self.post(&post::contact(Version::V5_3.word(), 0));
        self.post(&post::request_offers());
        self.synic.take();
    }

    pub fn post(&self, message: &[u8]) {
        assert_eq!(self.bus.post_message(PORT, 1, message), HvStatus::Success);
    }

    /// Posts, and returns the messages that came.
    pub fn ask(&self, message: &[u8]) -> Vec<Reply> {
        self.post(message);
        self.replies()
    }

    /// The messages that came; events are dropped.
    pub fn replies(&self) -> Vec<Reply> {
        let replies = self.synic.take().into_iter().filter_map(|heard| match heard {
            Heard::Message { reply, .. } => Some(reply),
            Heard::Event { .. } => None,
        });
        replies.collect()
    }

    /// Creates an 8-page ring at `first_page` and opens the channel on `vp`.
    pub fn open_at(&self, relid: u32, ring: u32, first_page: u64, vp: u32) -> Vec<Reply> {
        use vm_memory::{Bytes, GuestAddress};
        self.ram.memory().write_slice(&vec![0; 8 * 4096], GuestAddress(first_page * 4096)).unwrap();
        let messages = post::gpadl(relid, ring, &[super::Range::pages(first_page, 8)]);
        assert_eq!(self.ask(&messages[0]), [Reply::created(relid, ring)]);
        self.ask(&post::open(relid, ring, 4, vp))
    }

    /// As [`Machine::open_at`], successfully, on VP 0 and at a place of its own.
    pub fn open(&self, relid: u32, ring: u32) {
        assert_eq!(self.open_at(relid, ring, u64::from(ring) * 8, 0), [Reply::opened(relid)]);
    }
}

/// True when the event was signalled since it was last read; reads it.
pub fn is_rung(event: &EventFd) -> bool {
    event.read().is_ok()
}

/// Waits until the event is readable.
pub fn wait(event: &EventFd) {
    use std::os::fd::AsRawFd;
    let mut poll = libc::pollfd { fd: event.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, alive for the call.
    assert_eq!(unsafe { libc::poll(&raw mut poll, 1, -1) }, 1);
}
