//! The browser console with the guest's own drivers: the real page in headless Chromium.

use std::path::Path;

use guest_images::cache::Cache;
use guest_images::{StockKernel, chromium};
use guest_report::agent::Action;
use integration_tests::browser::{ALT, Browser, CTRL, META, SHIFT};
use integration_tests::host::results;
use integration_tests::image::WorkDir;
use integration_tests::picture::Picture;
use integration_tests::runner::{Test, TestResult};
use integration_tests::vm::{Vm, VmOptions};

use crate::common::{self, boot};
use crate::display::{
    ABS_X, ABS_Y, EV_ABS, EV_KEY, KEYBOARD, MOUSE, coordinate, event, events, guest,
};

const NAME: &str = "test_browser_logs_in_and_types_and_points_in_the_guests_shell";

/// The picture of the page that the test leaves among the results.
const PICTURE: &str = "browser-console.png";

/// The guest's screen, which is small because Chromium is slow in an emulated host.
const SIZE: (u32, u32) = (800, 600);

/// Codes of linux/input-event-codes.h.
const CODES: [(u8, u16); 4] = [(CTRL, 29), (ALT, 56), (SHIFT, 42), (META, 125)];

/// A key: modifiers, name of the key in the browser, its character or name there, code in the
/// guest.
type Key = (u8, &'static str, &'static str, u16);

/// The command that takes the next keys from the screen's console.
const COMMAND: [Key; 6] = [
    (0, "KeyC", "c", 46),
    (0, "KeyA", "a", 30),
    (0, "KeyT", "t", 20),
    (SHIFT, "Period", ">", 52),
    (0, "KeyF", "f", 33),
    (0, "Enter", "Enter", 28),
];

/// A sentence with all modifiers: Ctrl-U removes the first letter, and Alt adds an escape
/// character. The Windows key, and a key with three modifiers, have no effect on the console.
const SENTENCE: [Key; 16] = [
    (0, "KeyX", "x", 45),
    (CTRL, "KeyU", "u", 22),
    (SHIFT, "KeyH", "H", 35),
    (0, "KeyI", "i", 23),
    (0, "Comma", ",", 51),
    (0, "Space", " ", 57),
    (SHIFT, "KeyV", "V", 47),
    (SHIFT, "KeyM", "M", 50),
    (SHIFT, "Digit1", "!", 2),
    (SHIFT, "Backquote", "~", 41),
    (ALT, "KeyB", "b", 48),
    (META, "KeyR", "r", 19),
    (CTRL | ALT | SHIFT, "ArrowLeft", "ArrowLeft", 105),
    (0, "Slash", "/", 53),
    (0, "Enter", "Enter", 28),
    (CTRL, "KeyD", "d", 32),
];

pub(crate) fn add(tests: &mut Vec<Test>, kernel: StockKernel) {
    // The drivers are those of the test of the display, which runs on both kernels.
    if kernel == StockKernel::V6_12 {
        common::add(tests, kernel, NAME, browser);
    }
}

fn browser(kernel: StockKernel) -> TestResult {
    let dir = WorkDir::new()?;
    let program = chromium::program(&Cache::project())?;
    let image = guest(kernel).build()?;
    let (width, height) = SIZE;
    let display = format!("web=127.0.0.1:0,resolution={width}x{height}");
    let options = VmOptions::new(&image).argument("--display", &display);
    // Without a cursor that blinks, two pictures of the same screen are equal.
    let mut vm = boot(&options.cmdline("vt.global_cursor_default=0"))?;
    vm.shell(
        "busybox setsid sh -c 'PS1=\"guest# \" exec sh -i < /dev/tty1 > /dev/tty1 2>&1' \
         > /dev/null 2>&1 &",
    )?;
    let names = vec![KEYBOARD.to_owned(), MOUSE.to_owned()];
    vm.tell(Action::OpenInput { names, timeout_s: 60 })?;

    let mut browser = Browser::start(&program, dir.path());
    browser.emulate(1280, 800, false, false);
    let link = vm.synthvm(&["console", "--link"], &[])?;
    browser.open(link.trim());
    browser.wait_for("document.body.dataset.screenState === 'connected'");
    browser.wait_for("document.activeElement.tagName === 'CANVAS'");
    let before = assert_shows_the_screen(&vm, &mut browser, dir.path())?;

    press_all(&mut vm, &mut browser, &COMMAND)?;
    // The shell has left its editing mode when it opens the file.
    vm.shell("until [ -e f ]; do sleep 0.1; done")?;
    press_all(&mut vm, &mut browser, &SENTENCE)?;
    let typed = vm.shell("until [ -s f ]; do sleep 0.1; done; cat f")?;
    assert_eq!(typed, "Hi, VM!~\u{1b}br/\n");
    let after = assert_shows_the_screen(&vm, &mut browser, dir.path())?;
    assert_ne!(before, after, "the sentence is on the screen");
    browser.screenshot(&results().join(PICTURE));

    // A page at least as large as the guest's screen has a point for each of its pixels.
    browser.emulate(1400, 1100, false, false);
    browser.evaluate("document.getElementById('serial-toggle').click()");
    browser.wait_for(&format!(
        "document.querySelector('#screen canvas').getBoundingClientRect().width > {width}"
    ));
    for (x, y) in [(1, 2), (width - 1, height - 1), (width / 2, height / 3)] {
        let (left, top) = browser.point_of((x, y), SIZE);
        browser.point(left, top);
        let expected = [
            event(MOUSE, EV_ABS, ABS_X, coordinate(x, width)),
            event(MOUSE, EV_ABS, ABS_Y, coordinate(y, height)),
        ];
        assert_eq!(events(&mut vm, 2)?, expected, "pixel {x} {y}");
    }
    assert!(vm.power_off()?.success());
    Ok(())
}

/// Presses keys in the browser, one at a time, because the guest's kernel keeps some twenty for a
/// reader that is late. Compares the guest's events.
fn press_all(vm: &mut Vm, browser: &mut Browser, keys: &[Key]) -> TestResult {
    for (modifiers, name, key, code) in keys {
        browser.press(*modifiers, name, key);
        let held = CODES.iter().filter(|(bit, _)| modifiers & bit != 0).map(|(_, code)| *code);
        let held: Vec<u16> = held.collect();
        let event = |code: u16, value| event(KEYBOARD, EV_KEY, code, value);
        let expected: Vec<_> = (held.iter().map(|code| event(*code, 1)))
            .chain([event(*code, 1), event(*code, 0)])
            .chain(held.iter().rev().map(|code| event(*code, 0)))
            .collect();
        assert_eq!(events(vm, expected.len())?, expected, "{name}");
    }
    Ok(())
}

/// Waits until the page shows the same picture as a screenshot, pixel by pixel, and returns it.
fn assert_shows_the_screen(
    vm: &Vm,
    browser: &mut Browser,
    dir: &Path,
) -> Result<Picture, Box<dyn std::error::Error>> {
    const TRIES: usize = 20;
    let path = dir.join("canvas.png");
    for _ in 0..TRIES {
        std::fs::write(&path, browser.canvas())?;
        let (shown, screen) = (Picture::read(&path)?, vm.screenshot()?);
        if shown == screen {
            return Ok(shown);
        }
    }
    Err(format!("after {TRIES} tries the page shows another picture than the screen has").into())
}
