//! Viewers of VNC with the guest's own drivers: a real client captures the screen.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use guest_images::cache::Cache;
use guest_images::{StockKernel, gvnc};
use guest_report::agent::Action;
use guest_report::pattern;
use integration_tests::image::WorkDir;
use integration_tests::picture::Picture;
use integration_tests::runner::{Test, TestResult};
use integration_tests::vm::{Vm, VmOptions};
use integration_tests::vnc::{Viewer, capture};

use crate::common::{self, boot};
use crate::display::{
    ABS_X, ABS_Y, BTN_LEFT, EV_ABS, EV_KEY, EV_REL, KEYBOARD, MOUSE, REL_WHEEL, coordinate, event,
    events, guest,
};

const NAME: &str = "test_vnc_client_sees_the_guests_pixels_and_types_and_points";

const PASSWORD: &str = "open sea";

/// Timeout for the end of a viewer that does not read.
const DROP_LIMIT: Duration = Duration::from_secs(120);

/// Symbols of keys without a character (X11's keysymdef.h).
const SHIFT: u32 = 0xFFE1;
const CONTROL: u32 = 0xFFE3;
const ALT: u32 = 0xFFE9;
const ENTER: u32 = 0xFF0D;

/// The sentence, and the keys that type it: codes of linux/input-event-codes.h, and whether each
/// needs Shift.
const SENTENCE: &str = "Hi, VM! a/b~";
const KEYS: [(u16, bool); 12] = [
    (35, true),
    (23, false),
    (51, false),
    (57, false),
    (47, true),
    (50, true),
    (2, true),
    (57, false),
    (30, false),
    (53, false),
    (48, false),
    (41, true),
];
const KEY_LEFTSHIFT: u16 = 42;

pub(crate) fn add(tests: &mut Vec<Test>, kernel: StockKernel) {
    // The drivers are those of the test of the display, which runs on both kernels.
    if kernel == StockKernel::V6_12 {
        common::add(tests, kernel, NAME, vnc);
    }
}

fn vnc(kernel: StockKernel) -> TestResult {
    let dir = WorkDir::new()?;
    let client = gvnc::program(&Cache::project())?;
    let password = dir.path().join("password");
    std::fs::write(&password, format!("{PASSWORD}\n"))?;
    let port = free_port()?;
    let display = format!("vnc=127.0.0.1:{port},password-file={}", password.display());
    let image = guest(kernel).build()?;
    let mut vm = boot(&VmOptions::new(&image).argument("--display", &display))?;
    let to = dir.path().join("screen.png");
    let look = |password: &str| capture(&client, port, password, &to);

    draw(&mut vm, 1024, 768, 1)?;
    let mut viewer = Viewer::log_in(port, PASSWORD)?;
    assert_shows(&look(PASSWORD)?.ok_or("the password is right")?, 1024, 768, 1);
    check_keys(&mut vm, &mut viewer)?;
    check_pointer(&mut vm, &mut viewer, 1024, 768)?;
    // The mode changes under a connected viewer.
    draw(&mut vm, 1920, 1080, 2)?;
    assert_shows(&look(PASSWORD)?.ok_or("the password is right")?, 1920, 1080, 2);
    // A viewer that does not read: the sockets cannot keep two such pictures.
    let mut stalled = Viewer::log_in(port, PASSWORD)?;
    stalled.request()?;
    stalled.request()?;
    draw(&mut vm, 640, 480, 3)?;
    // Twenty viewers at the same time, beside the one that does not read.
    let others = (1..20).map(|_| Viewer::log_in(port, PASSWORD));
    let mut others = others.collect::<Result<Vec<_>, _>>()?;
    for other in &mut others {
        assert_shows(&other.picture()?, 640, 480, 3);
    }
    drop(others);

    for _ in 0..5 {
        assert_eq!(look("open see")?, None, "the password is wrong");
    }
    assert_eq!(look(PASSWORD)?, None, "no log-in is possible for a time");
    // The others have left, and the one that does not read is dropped after 30 s.
    let begin = Instant::now();
    let server = loop {
        let server = vm.inspect()?.display.ok_or("the report has a display")?.server;
        if server.dropped > 0 && server.viewers == 1 {
            break server;
        }
        if begin.elapsed() > DROP_LIMIT {
            return Err(format!("the viewer that does not read is not dropped: {server:?}").into());
        }
    };
    assert_eq!((server.dropped, server.connections, server.refused_logins), (1, 29, 6));
    viewer.type_symbols(&[u32::from(b'z')])?;
    let z = [event(KEYBOARD, EV_KEY, 44, 1), event(KEYBOARD, EV_KEY, 44, 0)];
    assert_eq!(events(&mut vm, 2)?, z, "a viewer that has logged in stays");
    assert!(vm.power_off()?.success());
    Ok(())
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Lets the guest draw, and waits until its mode has arrived.
fn draw(vm: &mut Vm, width: u16, height: u16, seed: u64) -> TestResult {
    vm.tell(Action::DrawPattern { width, height, seed })?;
    loop {
        match vm.screenshot() {
            Ok(picture) if (picture.width, picture.height) == (width.into(), height.into()) => {
                return Ok(());
            }
            Ok(_) => {}
            Err(error) if error.to_string().contains("shows no picture") => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn assert_shows(picture: &Picture, width: u32, height: u32, seed: u64) {
    assert_eq!((picture.width, picture.height), (width, height));
    let mut bytes = vec![0; picture.pixels.len() * 4];
    pattern::fill(&mut bytes, seed, 0);
    let (expected, _) = bytes.as_chunks::<4>();
    let differs = picture
        .pixels
        .iter()
        .zip(expected)
        .position(|(pixel, [blue, green, red, _])| pixel != &[*red, *green, *blue]);
    assert_eq!(differs, None, "the first pixel that differs");
}

/// Types the sentence without Shift, which the server adds, and a key with all modifiers.
fn check_keys(vm: &mut Vm, viewer: &mut Viewer) -> TestResult {
    let names = vec![KEYBOARD.to_owned(), MOUSE.to_owned()];
    vm.tell(Action::OpenInput { names, timeout_s: 60 })?;
    let key = |code, value| event(KEYBOARD, EV_KEY, code, value);
    // One at a time: the guest's kernel keeps some twenty keys for a reader that is late.
    for (symbol, (code, is_shifted)) in SENTENCE.chars().zip(KEYS) {
        viewer.type_symbols(&[u32::from(symbol)])?;
        let expected = match is_shifted {
            true => vec![key(KEY_LEFTSHIFT, 1), key(code, 1), key(KEY_LEFTSHIFT, 0), key(code, 0)],
            false => vec![key(code, 1), key(code, 0)],
        };
        assert_eq!(events(vm, expected.len())?, expected, "{symbol}");
    }

    let modifiers = [(CONTROL, 29), (ALT, 56), (SHIFT, KEY_LEFTSHIFT)];
    for (symbol, _) in modifiers {
        viewer.key(symbol, true)?;
    }
    viewer.type_symbols(&[ENTER])?;
    for (symbol, _) in modifiers.into_iter().rev() {
        viewer.key(symbol, false)?;
    }
    let presses = modifiers.into_iter().map(|(_, code)| key(code, 1));
    let releases = modifiers.into_iter().rev().map(|(_, code)| key(code, 0));
    let expected: Vec<_> = presses.chain([key(28, 1), key(28, 0)]).chain(releases).collect();
    assert_eq!(events(vm, expected.len())?, expected);
    Ok(())
}

fn check_pointer(vm: &mut Vm, viewer: &mut Viewer, width: u16, height: u16) -> TestResult {
    let (columns, rows) = (u32::from(width), u32::from(height));
    for (x, y) in [(1, 2), (width - 1, height - 1), (width / 2, height / 3)] {
        viewer.point(0, x, y)?;
        let expected = [
            event(MOUSE, EV_ABS, ABS_X, coordinate(x.into(), columns)),
            event(MOUSE, EV_ABS, ABS_Y, coordinate(y.into(), rows)),
        ];
        assert_eq!(events(vm, 2)?, expected, "pixel {x} {y}");
    }
    let (x, y) = (width / 2, height / 3);
    viewer.point(1, x, y)?;
    assert_eq!(events(vm, 1)?, [event(MOUSE, EV_KEY, BTN_LEFT, 1)]);
    viewer.point(0, x, y)?;
    assert_eq!(events(vm, 1)?, [event(MOUSE, EV_KEY, BTN_LEFT, 0)]);
    viewer.point(0b1_0000, x, y)?;
    assert_eq!(events(vm, 1)?[0], event(MOUSE, EV_REL, REL_WHEEL, -1));
    Ok(())
}
