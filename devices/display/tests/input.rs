//! Keys and the pointer of viewers reach the guest.

mod common;

use common::client::{Client, EXTENDED_BUTTONS, EXTENDED_KEYS, LEDS, RAW};
use common::guest::Guest;
use synthvm_display::{DisplayOptions, DisplayServer};

/// Flags of a key event for the guest.
const RELEASE: u32 = 2;
const E0: u32 = 4;

fn start() -> (Guest, DisplayServer) {
    let guest = Guest::new(640, 480);
    let server = guest.server(DisplayOptions::default());
    (guest, server)
}

#[test]
fn test_symbols_type_text_with_shift_where_the_keyboard_needs_it() {
    let (mut guest, server) = start();
    let mut client = Client::view(&server);
    for symbol in [u32::from(b'a'), u32::from(b'!'), 0xFF0D] {
        client.key(symbol, true);
        client.key(symbol, false);
    }
    let expected = [
        [0x1E, 0],
        [0x1E, RELEASE],
        [0x2A, 0],
        [0x02, 0],
        [0x2A, RELEASE],
        [0x02, RELEASE],
        [0x1C, 0],
        [0x1C, RELEASE],
    ];
    assert_eq!(guest.keys(8), expected);
}

#[test]
fn test_scan_codes_are_offered_and_passed_with_their_prefix() {
    let (mut guest, server) = start();
    let mut client = Client::view(&server);
    client.set_encodings(&[RAW, EXTENDED_KEYS]);
    client.request(true);
    assert!(client.update().iter().any(|sent| sent.encoding == EXTENDED_KEYS));
    for is_pressed in [1, 0] {
        client.send(&[255, 0, 0, is_pressed, 0, 0, 0xFF, 0x53, 0, 0, 0, 0xCD]);
    }
    assert_eq!(guest.keys(2), [[0x4D, E0], [0x4D, E0 | RELEASE]]);
}

#[test]
fn test_pointer_has_corners_buttons_and_wheel() {
    let (mut guest, server) = start();
    let mut client = Client::view(&server);
    client.pointer(0, 639, 479);
    assert_eq!(guest.reports_until((0, 32767, 32767, 0)).len(), 1);
    client.pointer(0b101, 0, 0);
    guest.reports_until((0b11, 0, 0, 0));
    client.pointer(0b1000, 0, 0);
    guest.reports_until((0, 0, 0, 1));
    client.pointer(0b1_0000, 0, 0);
    guest.reports_until((0, 0, 0, -1));
    client.set_encodings(&[RAW, EXTENDED_BUTTONS]);
    client.request(true);
    assert!(client.update().iter().any(|sent| sent.encoding == EXTENDED_BUTTONS));
    client.send(&[5, 0x80, 0, 0, 0, 0, 1]);
    guest.reports_until((8, 0, 0, 0));
}

#[test]
fn test_viewer_that_leaves_releases_its_keys_and_buttons_and_no_others() {
    let (mut guest, server) = start();
    let (mut leaving, mut staying) = (Client::view(&server), Client::view(&server));
    staying.key(u32::from(b's'), true);
    assert_eq!(guest.keys(1), [[0x1F, 0]]);
    leaving.key(0xFFE3, true);
    leaving.key(u32::from(b'c'), true);
    leaving.pointer(1, 639, 0);
    assert_eq!(guest.keys(2), [[0x1D, 0], [0x2E, 0]]);
    guest.reports_until((1, 32767, 0, 0));
    drop(leaving);
    assert_eq!(guest.keys(2), [[0x1D, RELEASE], [0x2E, RELEASE]]);
    guest.reports_until((0, 32767, 0, 0));
    staying.key(u32::from(b's'), false);
    assert_eq!(guest.keys(1), [[0x1F, RELEASE]]);
}

#[test]
fn test_leds_are_sent_once_the_guest_has_set_them() {
    let (mut guest, server) = start();
    let mut client = Client::view(&server);
    client.set_encodings(&[RAW, LEDS]);
    client.request(false);
    client.update();
    assert_eq!(client.leds, None, "a guest that sets no LEDs has none that are off");
    guest.leds(4);
    client.request(false);
    client.update();
    assert_eq!(client.leds, Some(4));
}

#[test]
fn test_text_of_the_clipboard_is_discarded() {
    let (mut guest, server) = start();
    let mut client = Client::view(&server);
    let text = vec![b'x'; 1 << 20];
    client.send(&[&[6, 0, 0, 0, 0, 0x10, 0, 0][..], &text].concat());
    // The extended clipboard, whose length is negative.
    client.send(&[6, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFC, 1, 2, 3, 4]);
    client.key(u32::from(b'a'), true);
    assert_eq!(guest.keys(1), [[0x1E, 0]]);
}
