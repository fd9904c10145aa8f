//! Both devices on a real bus, with a guest that writes its rings itself.

use std::sync::Arc;

use synthvm_input::keys::{Key, chords, type_text};
use synthvm_input::protocol::keyboard::Leds;
use synthvm_input::protocol::mouse::{Buttons, Report};
use synthvm_input::{Input, InputError, KEYBOARD, KeyEvent, MAX_KEYS};
use vmbus_device::{InlineWorkers, WorkerOptions};
use vmbus_host::{Device, SavedBus};
use vmbus_loopback::bare::{BareChannel, BareGuest, GuestOffer};
use vmbus_ring::PacketKind;

/// A guest with a keyboard and a mouse.
struct Rig {
    guest: BareGuest,
    input: Input,
    keyboard: BareChannel,
    mouse: BareChannel,
}

fn devices(inline: &InlineWorkers) -> (Input, Vec<Box<dyn Device>>) {
    let workers = WorkerOptions::default().inline(inline.clone());
    let (input, keyboard, mouse) = Input::new(&workers).unwrap();
    (input, vec![Box::new(keyboard), Box::new(mouse)])
}

fn offer(guest: &BareGuest, is_keyboard: bool) -> GuestOffer {
    *guest.offers.iter().find(|one| (one.class == KEYBOARD) == is_keyboard).unwrap()
}

impl Rig {
    fn open() -> Self {
        let inline = InlineWorkers::default();
        let (input, devices) = devices(&inline);
        let (mut guest, _) = BareGuest::new(devices);
        guest.serve = Some(Arc::new(move || inline.serve()));
        let keyboard = guest.open(offer(&guest, true), 9);
        let mouse = guest.open(offer(&guest, false), 9);
        Self { guest, input, keyboard, mouse }
    }

    /// Returns a guest whose drivers have connected.
    fn start() -> Self {
        let mut rig = Self::open();
        rig.connect_keyboard();
        rig.connect_mouse();
        rig
    }

    fn connect_keyboard(&mut self) {
        assert_eq!(ask(&mut self.keyboard, &words(&[1, 0x0001_0000])), words(&[2, 1]));
    }

    fn connect_mouse(&mut self) {
        let version = words(&[1, 12, 0, 4, 0x0002_0000]);
        assert_eq!(
            ask(&mut self.mouse, &version)[..21],
            [words(&[1, 13, 1, 5, 0x0002_0000]), vec![1]].concat()
        );
        assert_eq!(self.mouse.receive().payload.len(), (16_usize + 169).next_multiple_of(8));
        tell(&mut self.mouse, &[words(&[1, 9, 3, 1]), vec![0]].concat());
    }

    /// Returns make code and flags of each key event that has arrived.
    fn keys(&mut self) -> Vec<[u32; 2]> {
        let packets = received(&mut self.keyboard);
        let word =
            |packet: &Vec<u8>, at| u32::from_le_bytes(packet[at..at + 4].try_into().unwrap());
        assert!(packets.iter().all(|packet| word(packet, 0) == 3));
        packets.iter().map(|packet| [word(packet, 4), word(packet, 8)]).collect()
    }

    /// Returns each report that has arrived.
    fn reports(&mut self) -> Vec<Vec<u8>> {
        received(&mut self.mouse).iter().map(|packet| packet[16..23].to_vec()).collect()
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn ask(channel: &mut BareChannel, message: &[u8]) -> Vec<u8> {
    channel.send(1, message, &[]);
    let packet = channel.receive();
    assert_eq!(packet.kind, PacketKind::InBand);
    packet.payload
}

fn tell(channel: &mut BareChannel, message: &[u8]) {
    channel.send(1, message, &[]);
    channel.serve.as_ref().unwrap()();
    assert!(channel.try_receive().is_none());
}

/// Returns the payloads of all packets, and takes them as fast as they come.
fn received(channel: &mut BareChannel) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    loop {
        channel.serve.as_ref().unwrap()();
        let before = packets.len();
        while let Some(packet) = channel.try_receive() {
            packets.push(packet.payload);
        }
        if packets.len() == before {
            return packets;
        }
    }
}

#[test]
fn test_keyboard_is_no_pipe_and_mouse_is_one() {
    let rig = Rig::open();
    assert_eq!(offer(&rig.guest, true).flags, 0);
    let mouse = offer(&rig.guest, false);
    assert_eq!((mouse.flags, mouse.user_defined[0]), (0x10, 4));
}

#[test]
fn test_input_before_the_driver_connects_is_dropped_and_not_sent_later() {
    let mut rig = Rig::open();
    let keys = chords("ctrl-alt-del").unwrap();
    assert_eq!(rig.input.keys(&keys), Err(InputError::NotConnected));
    assert_eq!(rig.input.key(keys[0]), Err(InputError::NotConnected));
    assert_eq!(rig.input.pointer(Report::default()), Err(InputError::NotConnected));
    assert!(!rig.input.has_keyboard() && !rig.input.has_pointer());
    rig.connect_keyboard();
    rig.connect_mouse();
    assert!(rig.input.has_keyboard() && rig.input.has_pointer());
    assert!(rig.keys().is_empty() && rig.reports().is_empty());
    assert_eq!(rig.input.keyboard_counters().dropped, 7);
    assert_eq!(rig.input.mouse_counters().dropped, 1);
}

#[test]
fn test_mouse_sends_no_report_before_its_description_is_acknowledged() {
    let mut rig = Rig::open();
    ask(&mut rig.mouse, &words(&[1, 12, 0, 4, 0x0002_0000]));
    rig.mouse.receive();
    assert_eq!(rig.input.pointer(Report::default()), Err(InputError::NotConnected));
}

#[test]
fn test_keys_arrive_in_order_as_scan_codes() {
    let mut rig = Rig::start();
    rig.input.keys(&type_text("aB").unwrap()).unwrap();
    rig.input.keys(&chords("right").unwrap()).unwrap();
    let expected =
        [[0x1E, 0], [0x1E, 2], [0x2A, 0], [0x30, 0], [0x30, 2], [0x2A, 2], [0x4D, 4], [0x4D, 6]];
    assert_eq!(rig.keys(), expected);
    assert_eq!(rig.input.keyboard_counters().sent, 8);
}

#[test]
fn test_pressed_keys_are_released_when_the_viewer_leaves() {
    let mut rig = Rig::start();
    for code in [0x1D, 0xB8] {
        rig.input.key(KeyEvent { key: Key::from_xt(code), is_pressed: true }).unwrap();
    }
    rig.input.release_keys();
    rig.input.release_keys();
    assert_eq!(rig.keys(), [[0x1D, 0], [0x38, 4], [0x1D, 2], [0x38, 6]]);
}

#[test]
fn test_text_is_queued_whole_or_not_at_all_while_the_guest_reads_nothing() {
    let mut rig = Rig::start();
    let text = type_text(&"x".repeat(MAX_KEYS / 2)).unwrap();
    let mut whole = 0;
    while rig.input.keys(&text).is_ok() {
        whole += 1;
        rig.keyboard.serve.as_ref().unwrap()();
    }
    assert!((1..4).contains(&whole), "the ring and the queue hold some");
    assert_eq!(rig.input.keyboard_counters().dropped, MAX_KEYS as u64);
    assert_eq!(rig.keys().len(), whole * MAX_KEYS, "all that was taken arrives");
    rig.input.keys(&text).unwrap();
    assert_eq!(rig.keys().len(), MAX_KEYS);
}

#[test]
fn test_leds_of_the_guest_are_seen() {
    let mut rig = Rig::start();
    assert_eq!(rig.input.leds(), Leds::empty());
    tell(&mut rig.keyboard, &words(&[4, 4]));
    assert_eq!(rig.input.leds(), Leds::CAPS_LOCK);
}

#[test]
fn test_reports_have_position_buttons_and_wheel_and_motion_is_merged() {
    let mut rig = Rig::start();
    let report = |buttons, x, wheel| Report { buttons, x, y: 2, wheel };
    rig.input.pointer(report(Buttons::empty(), 1, 0)).unwrap();
    rig.input.pointer(report(Buttons::empty(), 3, 0)).unwrap();
    rig.input.pointer(report(Buttons::LEFT, 3, 0)).unwrap();
    rig.input.pointer(report(Buttons::empty(), 0xFFFF, -1)).unwrap();
    let expected =
        [[0, 3, 0, 2, 0, 0, 0], [1, 3, 0, 2, 0, 0, 0], [0, 0xFF, 0x7F, 2, 0, 0xFF, 0xFF]];
    assert_eq!(rig.reports(), expected);
    let counters = rig.input.mouse_counters();
    assert_eq!((counters.sent, counters.replaced), (3, 1));
}

#[test]
fn test_garbage_is_counted_and_the_devices_still_work() {
    let mut rig = Rig::start();
    for garbage in [&[][..], &[9], &[5, 0, 0, 0, 1], &[0xFF; 300], &[7; 2000]] {
        tell(&mut rig.keyboard, garbage);
        tell(&mut rig.mouse, garbage);
    }
    assert_eq!(rig.input.keyboard_counters().refused, 5);
    assert_eq!(rig.input.mouse_counters().refused, 5);
    rig.input.keys(&type_text("a").unwrap()).unwrap();
    assert_eq!(rig.keys().len(), 2);
    rig.input.pointer(Report::default()).unwrap();
    assert_eq!(rig.reports().len(), 1);
}

#[test]
fn test_channels_reopened_begin_anew_without_old_events() {
    let mut rig = Rig::start();
    for _ in 0..3 {
        rig.input.keys(&type_text("abc").unwrap()).unwrap();
        rig.input.pointer(Report::default()).unwrap();
        rig.guest.close(rig.keyboard);
        rig.guest.close(rig.mouse);
        assert_eq!(rig.input.keys(&[]), Err(InputError::NotConnected));
        rig.keyboard = rig.guest.open(offer(&rig.guest, true), 9);
        rig.mouse = rig.guest.open(offer(&rig.guest, false), 9);
        rig.connect_keyboard();
        rig.connect_mouse();
        assert!(rig.keys().is_empty() && rig.reports().is_empty());
    }
}

#[test]
fn test_drivers_stay_connected_over_save_and_restore_in_another_process() {
    let Rig { mut guest, mut keyboard, mut mouse, .. } = Rig::start();
    guest.bus.pause();
    let saved = serde_json::to_vec(&guest.bus.save().unwrap()).unwrap();
    let inline = InlineWorkers::default();
    let (input, devices) = devices(&inline);
    guest.replace_bus(devices);
    let saved: SavedBus = serde_json::from_slice(&saved).unwrap();
    guest.bus.restore(&saved).unwrap();
    guest.bus.resume();
    let serve: vmbus_loopback::bare::Serve = Arc::new(move || inline.serve());
    guest.serve = Some(Arc::clone(&serve));
    for (channel, is_keyboard) in [(&mut keyboard, true), (&mut mouse, false)] {
        channel.serve = Some(Arc::clone(&serve));
        channel.doorbell = guest.doorbell(offer(&guest, is_keyboard));
    }
    let mut rig = Rig { guest, input, keyboard, mouse };
    assert!(rig.input.has_keyboard() && rig.input.has_pointer());
    rig.input.keys(&type_text("a").unwrap()).unwrap();
    rig.input.pointer(Report::default()).unwrap();
    assert_eq!(rig.keys(), [[0x1E, 0], [0x1E, 2]]);
    assert_eq!(rig.reports().len(), 1);
}
