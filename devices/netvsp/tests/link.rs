//! The link at run time, and backends with a small MTU.

mod guest;

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use guest::*;
use synthvm_net::{Attachment, Backend, LinkState, Loop, Offloads, Queue};
use synthvm_netvsp::{Clock, NetworkCard};
use vmbus_device::InlineWorkers;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const UP: u32 = 0x4001_000B;
const DOWN: u32 = 0x4001_000C;

/// A loop whose far end comes and goes.
#[derive(Debug)]
struct Cable {
    inner: Loop,
    is_up: AtomicBool,
    event: EventFd,
    mtu: u32,
}

impl Cable {
    fn new(mtu: u32) -> Arc<Self> {
        let event = EventFd::new(EFD_NONBLOCK).unwrap();
        Arc::new(Self { inner: Loop::new(1), is_up: AtomicBool::new(true), event, mtu })
    }

    fn set(&self, is_up: bool) {
        self.is_up.store(is_up, Ordering::SeqCst);
        self.event.write(1).unwrap();
    }
}

impl Backend for Cable {
    fn offloads(&self) -> Offloads {
        self.inner.offloads()
    }

    fn mtu_limit(&self) -> u32 {
        self.mtu
    }

    fn queue(&self, index: usize) -> io::Result<Box<dyn Queue>> {
        self.inner.queue(index)
    }

    fn link(&self) -> LinkState {
        let _ = self.event.read();
        if self.is_up.load(Ordering::SeqCst) { LinkState::Up } else { LinkState::Down }
    }

    fn link_event(&self) -> Option<RawFd> {
        Some(self.event.as_raw_fd())
    }

    fn set_receive_offloads(&self, _: Offloads) -> io::Result<()> {
        Ok(())
    }
}

/// A guest with a card over a cable, and its clock, in milliseconds.
struct Machine {
    guest: NetGuest,
    card: NetworkCard,
    cable: Arc<Cable>,
    attachment: Arc<Attachment>,
    clock: Arc<AtomicU64>,
}

impl Machine {
    fn new(mtu: u32) -> Self {
        let (inline, cable) = (InlineWorkers::default(), Cable::new(mtu));
        let time = Arc::new(AtomicU64::new(100));
        let read = Arc::clone(&time);
        let clock: Clock = Arc::new(move || Duration::from_millis(read.load(Ordering::SeqCst)));
        let attachment = Arc::new(Attachment::new(cable.clone(), LinkState::Up).unwrap());
        let card = NetworkCard::with_clock(options(&inline), attachment.clone(), 2, clock);
        let mut guest = NetGuest::open_card(card.clone(), inline);
        guest.initialise();
        guest.set(0x0001_010E, &0x20_u32.to_le_bytes());
        Self { guest, card, cable, attachment, clock: time }
    }

    /// Returns the indications that have come.
    fn indications(&mut self) -> Vec<u32> {
        self.card.check_link();
        self.guest.inline.serve();
        let packets = self.guest.take(0);
        let indication = |packet| {
            let bytes = self.guest.content(packet).remove(0);
            assert_eq!([0, 4, 12].map(|at| word(&bytes, at)), [7, 20, 0]);
            word(&bytes, 8)
        };
        let indications = packets.iter().map(indication).collect();
        packets.iter().for_each(|packet| self.guest.complete(packet));
        indications
    }

    fn is_connected(&mut self) -> bool {
        self.guest.query(0x0001_0114).1 == [0; 4]
    }
}

/// Checklist 39.
#[test]
fn test_backend_that_goes_and_comes_back_is_indicated_with_5_seconds_between() {
    let mut machine = Machine::new(1500);
    assert!(machine.is_connected() && machine.indications().is_empty());
    machine.cable.set(false);
    assert_eq!(machine.indications(), [DOWN]);
    assert!(!machine.is_connected() && !machine.card.is_link_up());
    // It is back early: queries report it at once, the indication follows.
    machine.clock.store(1000, Ordering::SeqCst);
    machine.cable.set(true);
    assert!(machine.indications().is_empty());
    assert!(machine.is_connected());
    machine.clock.store(5099, Ordering::SeqCst);
    assert!(machine.indications().is_empty());
    machine.clock.store(5100, Ordering::SeqCst);
    assert_eq!(machine.indications(), [UP]);
    assert!(machine.indications().is_empty());
    // Gone and back between two looks: nothing to indicate.
    machine.clock.store(20_000, Ordering::SeqCst);
    machine.cable.set(false);
    machine.cable.set(true);
    assert!(machine.indications().is_empty());
}

#[test]
fn test_link_before_initialize_and_after_halt_is_not_indicated() {
    let (inline, cable) = (InlineWorkers::default(), Cable::new(1500));
    let card = NetworkCard::new(options(&inline), cable.clone());
    let mut guest = NetGuest::open_card(card.clone(), inline);
    cable.set(false);
    card.check_link();
    guest.initialise();
    guest.inline.serve();
    assert_eq!(guest.channel.try_receive(), None);
    assert_eq!(guest.query(0x0001_0114).1, 1_u32.to_le_bytes());
    let completion = guest.send_control(&words(&[3, 12, 1]));
    assert_eq!(word(&completion, 4), 1, "HALT");
    cable.set(true);
    card.check_link();
    guest.inline.serve();
    assert_eq!(guest.channel.try_receive(), None);
}

#[test]
fn test_card_whose_cable_is_pulled_drops_frames_of_both_directions() {
    let mut machine = Machine::new(1500);
    // It is on its way back when the cable is pulled.
    machine.guest.set(0x0001_010E, &0_u32.to_le_bytes());
    assert_eq!(machine.guest.send_on(0, &packet(&frame(1, 60), &[])), 1);
    machine.attachment.set_link(LinkState::Down);
    assert_eq!(machine.indications(), [DOWN]);
    machine.guest.set(0x0001_010E, &0x20_u32.to_le_bytes());
    assert_eq!(machine.guest.send_on(0, &packet(&frame(2, 60), &[])), 1, "sent, and lost");
    assert!(machine.indications().is_empty());
    machine.clock.store(10_000, Ordering::SeqCst);
    machine.attachment.set_link(LinkState::Up);
    machine.attachment.set_link(LinkState::Up);
    assert_eq!(machine.indications(), [UP]);
    assert_eq!(machine.guest.send_on(0, &packet(&frame(3, 60), &[])), 1);
    assert_eq!(machine.guest.receive()[0].bytes, frame(3, 60));
}

#[test]
fn test_backend_without_link_is_down_whatever_the_user_says() {
    let mut machine = Machine::new(1500);
    machine.cable.set(false);
    assert_eq!(machine.indications(), [DOWN]);
    machine.clock.store(10_000, Ordering::SeqCst);
    machine.attachment.set_link(LinkState::Down);
    machine.attachment.set_link(LinkState::Up);
    assert!(machine.indications().is_empty() && !machine.card.is_link_up());
}

#[test]
fn test_small_mtu_of_the_backend_is_the_guests() {
    let mut machine = Machine::new(1400);
    assert_eq!(machine.guest.query(0x0001_0106).1, 1400_u32.to_le_bytes());
    assert_eq!(machine.guest.query(0x0001_0111).1, 1414_u32.to_le_bytes());
    for (length, status) in [(1414, 1), (1419, 2), (1514, 2)] {
        let message = packet(&frame(1, length), &[]);
        assert_eq!(machine.guest.send_on(0, &message), status, "{length} bytes");
    }
    assert_eq!(machine.guest.take(0).len(), 1);
    // A larger one changes nothing.
    let mut machine = Machine::new(9000);
    assert_eq!(machine.guest.query(0x0001_0106).1, 1500_u32.to_le_bytes());
    assert_eq!(machine.guest.send_on(0, &packet(&frame(1, 1519), &[])), 2);
}

/// The thread that watches the backend passes changes on.
#[test]
fn test_link_of_a_card_with_threads_is_watched() {
    let cable = Cable::new(1500);
    let mut card_options = options(&InlineWorkers::default());
    card_options.workers.inline = None;
    let card = NetworkCard::new(card_options, cable.clone());
    let (mut bare, _) = vmbus_loopback::bare::BareGuest::new(vec![Box::new(card.clone())]);
    let channel = bare.open(bare.offers[0], 8);
    for is_up in [false, true, false] {
        cable.set(is_up);
        while card.is_link_up() != is_up {
            std::thread::yield_now();
        }
    }
    bare.close(channel);
}
