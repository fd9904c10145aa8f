//! Tests of screen, keyboard and mouse with the guest's own drivers.

use guest_images::{GuestBuilder, StockKernel};
use guest_report::agent::{Action, InputEvent};
use guest_report::pattern;
use integration_tests::runner::{Test, TestResult};
use integration_tests::vm::{Vm, VmError, VmOptions};

use crate::common::{self, boot};

const NAME: &str = "test_display_shows_the_guests_pixels_and_takes_keys_and_pointer";

/// The drivers, in load order.
const DRIVERS: [&str; 3] = ["hyperv_keyboard", "hid_hyperv", "hyperv_drm"];

/// The names that Linux gives the devices.
pub(crate) const KEYBOARD: &str = "AT Translated Set 2 keyboard";
pub(crate) const MOUSE: &str = "Microsoft Vmbus HID-compliant Mouse";

/// Types of events, and codes (linux/input-event-codes.h).
pub(crate) const EV_KEY: u16 = 1;
pub(crate) const EV_REL: u16 = 2;
pub(crate) const EV_ABS: u16 = 3;
pub(crate) const REL_WHEEL: u16 = 8;
pub(crate) const ABS_X: u16 = 0;
pub(crate) const ABS_Y: u16 = 1;
pub(crate) const BTN_LEFT: u16 = 0x110;

/// Returns the guest: the full flavour of the kernel, as the cloud flavour has no hyperv_drm.
pub(crate) fn guest(kernel: StockKernel) -> GuestBuilder {
    let builder = GuestBuilder::full(kernel).module("atkbd", true).module("hid_generic", true);
    DRIVERS.into_iter().fold(builder, |builder, name| builder.module(name, true))
}

pub(crate) fn add(tests: &mut Vec<Test>, kernel: StockKernel) {
    common::add(tests, kernel, NAME, display);
}

fn display(kernel: StockKernel) -> TestResult {
    let image = guest(kernel).build()?;
    let mut vm = boot(&VmOptions::new(&image).argument("--display", "headless"))?;
    for (seed, (width, height)) in [(1, (1024, 768)), (2, (1920, 1080)), (3, (640, 480))] {
        assert_pixels(&mut vm, width, height, seed)?;
    }
    assert_input(&mut vm, 640, 480)?;
    vm.tell(Action::CloseScreen)?;
    vm.tell(Action::CloseInput)?;
    let names = DRIVERS.map(str::to_owned).to_vec();
    vm.tell(Action::ModulesReload { names, times: 10 })?;
    assert_pixels(&mut vm, 800, 600, 4)?;
    assert_input(&mut vm, 800, 600)?;
    assert_pixels(&mut vm, 1280, 1024, 5)?;
    let inspect = vm.inspect()?;
    let open = inspect.channels.iter().filter(|one| one.state == "open").count();
    assert!(open >= 3, "{:?}", inspect.channels);
    assert!(vm.power_off()?.success());
    Ok(())
}

/// Lets the guest draw, and compares each pixel.
fn assert_pixels(vm: &mut Vm, width: u16, height: u16, seed: u64) -> TestResult {
    vm.tell(Action::DrawPattern { width, height, seed })?;
    let (columns, rows) = (u32::from(width), u32::from(height));
    // The guest has written all pixels, but the device may not have read its message yet.
    let picture = loop {
        match vm.screenshot() {
            Ok(picture) if (picture.width, picture.height) == (columns, rows) => break picture,
            Ok(_) => {}
            Err(error) if error.to_string().contains("shows no picture") => {}
            Err(error) => return Err(error.into()),
        }
    };
    let mut bytes = vec![0; usize::from(width) * usize::from(height) * 4];
    pattern::fill(&mut bytes, seed, 0);
    let (expected, _) = bytes.as_chunks::<4>();
    let differs = picture
        .pixels
        .iter()
        .zip(expected)
        .position(|(pixel, [blue, green, red, _])| pixel != &[*red, *green, *blue]);
    assert_eq!(differs, None, "the first pixel that differs at {width}x{height}");
    Ok(())
}

/// Types, points, clicks and turns the wheel, and compares the events in the guest.
fn assert_input(vm: &mut Vm, width: u32, height: u32) -> TestResult {
    let names = vec![KEYBOARD.to_owned(), MOUSE.to_owned()];
    vm.tell(Action::OpenInput { names, timeout_s: 60 })?;
    vm.type_text("aZ!\n")?;
    vm.send_keys("shift-f10 right")?;
    let (shift, z, one) = (42, 44, 2);
    let keys = [
        (30, 1),
        (30, 0),
        (shift, 1),
        (z, 1),
        (z, 0),
        (shift, 0),
        (shift, 1),
        (one, 1),
        (one, 0),
        (shift, 0),
        (28, 1),
        (28, 0),
        (shift, 1),
        (68, 1),
        (68, 0),
        (shift, 0),
        (106, 1),
        (106, 0),
    ];
    let expected = keys.map(|(code, value)| event(KEYBOARD, EV_KEY, code, value));
    assert_eq!(events(vm, expected.len())?, expected);

    for (x, y) in [(1, 2), (width - 1, height - 1), (width / 2, height / 3)] {
        vm.pointer(x, y, &[])?;
        let expected = [
            event(MOUSE, EV_ABS, ABS_X, coordinate(x, width)),
            event(MOUSE, EV_ABS, ABS_Y, coordinate(y, height)),
        ];
        assert_eq!(events(vm, 2)?, expected, "pixel {x} {y}");
    }
    let (x, y) = (width / 2, height / 3);
    vm.pointer(x, y, &["--buttons", "left"])?;
    assert_eq!(events(vm, 1)?, [event(MOUSE, EV_KEY, BTN_LEFT, 1)]);
    vm.pointer(x, y, &[])?;
    assert_eq!(events(vm, 1)?, [event(MOUSE, EV_KEY, BTN_LEFT, 0)]);
    vm.pointer(x, y, &["--wheel", "-2"])?;
    assert_eq!(events(vm, 1)?[0], event(MOUSE, EV_REL, REL_WHEEL, -2));
    Ok(())
}

pub(crate) fn event(device: &str, kind: u16, code: u16, value: i32) -> InputEvent {
    InputEvent { device: device.to_owned(), kind, code, value }
}

pub(crate) fn events(vm: &mut Vm, count: usize) -> Result<Vec<InputEvent>, VmError> {
    vm.ask(Action::ReadInput { count, timeout_s: 30 })
}

/// Returns the position of a pixel on an axis from 0 to 32767.
pub(crate) fn coordinate(pixel: u32, size: u32) -> i32 {
    let scaled = f64::from(pixel) * 32767.0 / f64::from(size - 1);
    scaled.round() as i32
}
