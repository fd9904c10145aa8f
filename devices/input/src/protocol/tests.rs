//! Tests of the protocols, by the checklist of hid-video section 8.

use super::keyboard::Leds;
use super::mouse::{Buttons, MAX_COORDINATE, REPORT_DESCRIPTOR, Report, coordinate};
use super::*;
use crate::keys::{Key, KeyEvent, Prefix};

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn test_keyboard_accepts_1_0_and_stays_ready_for_it_after_another_version() {
    let mut session = keyboard::Session::default();
    for (version, accepted) in [(0x0002_0000, 0), (1, 0), (0x0001_0000, 1), (0x0001_0001, 0)] {
        let outcome = session.handle(&words(&[1, version])).unwrap();
        let keyboard::Outcome::Reply { message, refused } = outcome else { panic!() };
        assert_eq!(message, words(&[2, accepted]));
        assert_eq!(refused.is_none(), accepted == 1);
        assert_eq!(session.is_ready(), accepted == 1);
    }
}

#[test]
fn test_keyboard_takes_leds_and_refuses_short_and_unknown_messages() {
    let mut session = keyboard::Session::default();
    let leds = session.handle(&words(&[4, 0xFFFF_0006])).unwrap();
    assert_eq!(leds, keyboard::Outcome::Leds(Leds::NUM_LOCK | Leds::CAPS_LOCK));
    for bytes in [&[][..], &[1, 0, 0], &words(&[1]), &[4, 0, 0, 0, 1], &[1, 0, 0, 0, 0, 0, 1]] {
        assert_eq!(session.handle(bytes), Err(Rejected::Short), "{bytes:?}");
    }
    for kind in [0, 2, 3, 5, u32::MAX] {
        assert_eq!(session.handle(&words(&[kind, 0])), Err(Rejected::Type(kind)));
    }
}

#[test]
fn test_key_events_have_make_code_and_flags() {
    let event = |key, is_pressed| keyboard::event(KeyEvent { key, is_pressed });
    let a = Key::from_xt(0x1E);
    assert_eq!(event(a, true), words(&[3, 0x1E, 0]));
    assert_eq!(event(a, false), words(&[3, 0x1E, 2]));
    assert_eq!(event(Key::from_xt(0xCD), true), words(&[3, 0x4D, 4]));
    let pause = Key::Scan { code: 0x1D, prefix: Prefix::E1 };
    assert_eq!(event(pause, false), words(&[3, 0x1D, 10]));
    assert_eq!(event(Key::Unicode(0x20AC), true), words(&[3, 0x20AC, 1]));
}

/// Returns a message to the mouse.
fn message(kind: u32, body: &[u8]) -> Vec<u8> {
    let length = body.len() as u32;
    [words(&[1, length + 8, kind, length]), body.to_vec()].concat()
}

const VERSION: [u8; 4] = 0x0002_0000_u32.to_le_bytes();

#[test]
fn test_mouse_describes_itself_after_version_2_0() {
    let mut session = mouse::Session::New;
    let outcome = session.handle(&message(0, &VERSION)).unwrap();
    assert_eq!(outcome.replies[0], message(1, &[0, 0, 2, 0, 1]));
    let info = &outcome.replies[1];
    assert_eq!(info.len(), 16 + 32 + 9 + 128);
    assert_eq!(info[..16], words(&[1, 8 + 169, 2, 169]));
    assert_eq!(info[16..26], [32, 0, 0, 0, 0x5E, 0x04, 0x21, 0x06, 1, 0]);
    assert_eq!(info[48..57], [9, 0x21, 1, 1, 0, 1, 0x22, 67, 0]);
    assert_eq!(info[57..57 + 67], REPORT_DESCRIPTOR);
    assert!(!session.is_ready());
    session.handle(&message(3, &[0])).unwrap();
    assert!(session.is_ready());
}

#[test]
fn test_mouse_refuses_other_versions_and_messages_out_of_order() {
    let mut session = mouse::Session::New;
    assert_eq!(session.handle(&message(3, &[0])), Err(Rejected::Order));
    let outcome = session.handle(&message(0, &[0, 0, 3, 0])).unwrap();
    assert_eq!(outcome.replies, [message(1, &[0, 0, 3, 0, 0])]);
    assert_eq!(outcome.refused, Some(Rejected::Version(0x0003_0000)));
    assert_eq!(session, mouse::Session::New);
    session.handle(&message(0, &VERSION)).unwrap();
    session.handle(&message(3, &[0])).unwrap();
    session.handle(&message(3, &[0])).unwrap();
    assert!(session.is_ready(), "a second acknowledgement changes nothing");
    let whole = message(0, &VERSION);
    for length in 0..whole.len() {
        assert_eq!(session.handle(&whole[..length]), Err(Rejected::Short), "{length}");
    }
    assert_eq!(session.handle(&words(&[2, 8, 0, 0])), Err(Rejected::Pipe(2)));
    assert_eq!(session.handle(&message(4, &[0; 7])), Err(Rejected::Type(4)));
}

#[test]
fn test_report_has_seven_bytes() {
    let buttons = Buttons::LEFT | Buttons::EXTRA_2;
    let report = mouse::report(Report { buttons, x: 0x7FFF, y: 0x0102, wheel: -2 });
    assert_eq!(report, message(4, &[0x11, 0xFF, 0x7F, 0x02, 0x01, 0xFE, 0xFF]));
}

#[test]
fn test_coordinates_reach_both_edges_and_clamp_beyond() {
    for size in [2, 3, 640, 1920, 3840, u32::MAX] {
        assert_eq!(coordinate(0, size), 0);
        assert_eq!(coordinate(size - 1, size), MAX_COORDINATE);
        assert_eq!(coordinate(u32::MAX, size), MAX_COORDINATE);
    }
    assert_eq!(coordinate(5, 1), 0);
    assert_eq!(coordinate(5, 0), 0);
    // Each pixel has its own coordinate, from which a guest computes the pixel again.
    for pixel in 0..1920_u64 {
        let scaled = u64::from(coordinate(pixel as u32, 1920));
        assert_eq!((scaled * 1919 + 16383) / 32767, pixel);
    }
}
