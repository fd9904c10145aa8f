//! A desktop on the guest's screen: Weston, with a terminal.

use guest_images::cache::Cache;
use guest_images::{GuestBuilder, StockKernel, chromium, weston};
use integration_tests::browser::Browser;
use integration_tests::host::results;
use integration_tests::image::WorkDir;
use integration_tests::picture::Picture;
use integration_tests::runner::{Test, TestResult};
use integration_tests::vm::{Vm, VmOptions};

use crate::common::{self, boot, start_program};
use crate::display;

/// The variable that adds this test, which takes 90 s.
const LONG: &str = "SYNTHVM_LONG_TESTS";

const NAME: &str = "test_desktop_of_weston_shows_its_panel_and_a_window";

/// The pictures that the test leaves among the results.
const SCREEN: &str = "desktop.png";
const PAGE: &str = "desktop-console.png";

/// The colours of panel and background in Weston's configuration.
const PANEL: [u8; 3] = [0x1B, 0x21, 0x28];
const BACKGROUND: [u8; 3] = [0x0F, 0x76, 0x6E];

/// Number of pictures to wait for what a program draws. Each takes some tenths of a second.
const TRIES: usize = 400;

/// The terminal's shell.
const SHELL: &str = "#!/bin/sh\necho; uname -srm; echo; lsmod | grep -e hyperv -e Module\n\
    PS1='guest# ' exec sh -i\n";

/// Fetches what the test needs, if it is wanted.
pub(crate) fn prepare() -> Result<(), guest_images::Error> {
    if is_wanted() {
        guest(StockKernel::V6_12).build()?;
    }
    Ok(())
}

fn is_wanted() -> bool {
    std::env::var_os(LONG).is_some()
}

/// Returns the guest.
fn guest(kernel: StockKernel) -> GuestBuilder {
    weston::add_to(display::guest(kernel)).file("bin/terminal-shell", 0o755, SHELL.into())
}

pub(crate) fn add(tests: &mut Vec<Test>, kernel: StockKernel) {
    // The driver is that of the test of the display, which runs on both kernels.
    if kernel == StockKernel::V6_12 && is_wanted() {
        common::add(tests, kernel, NAME, desktop);
    }
}

fn desktop(kernel: StockKernel) -> TestResult {
    let dir = WorkDir::new()?;
    let program = chromium::program(&Cache::project())?;
    let image = guest(kernel).build()?;
    let options = VmOptions::new(&image).memory("1G").argument("--display", "web=127.0.0.1:0");
    let mut vm = boot(&options)?;
    // Programs of the terminal need pseudo-terminals.
    vm.shell("mkdir -p /dev/pts && mount -t devpts devpts /dev/pts")?;
    vm.shell("busybox setsid sh -c 'PS1=\"guest# \" exec sh -i < /dev/ttyS0 > /dev/ttyS0 2>&1' &")?;
    start_program(&mut vm, "weston", "desktop")?;
    let empty = wait_for(&mut vm, |picture| {
        let of = |colour| picture.pixels.iter().filter(|pixel| **pixel == colour).count();
        let rows = |count: usize| count / picture.width as usize;
        picture.pixels[0] == PANEL && rows(of(PANEL)) > 20 && rows(of(BACKGROUND)) > 700
    })?;
    let terminal = "env WESTON_CONFIG_FILE=/etc/weston.ini XDG_RUNTIME_DIR=/tmp/run \
                    WAYLAND_DISPLAY=wayland-1 HOME=/tmp TERM=xterm \
                    weston-terminal --shell=/bin/terminal-shell";
    start_program(&mut vm, "terminal", terminal)?;
    // The window covers a part of the background, and has text.
    wait_for(&mut vm, |picture| {
        let changed = picture.pixels.iter().zip(&empty.pixels);
        let changed: Vec<_> = changed.filter(|(now, before)| now != before).collect();
        let bright = changed.iter().filter(|(now, _)| now.iter().all(|part| *part > 0xA0));
        changed.len() > picture.pixels.len() / 5 && bright.count() > 3000
    })?;
    vm.synthvm(&["screenshot"], &[&results().join(SCREEN).display().to_string()])?;

    let mut browser = Browser::start(&program, dir.path());
    browser.emulate(1280, 800, false, false);
    browser.open(vm.synthvm(&["console", "--link"], &[])?.trim());
    browser.wait_for("document.body.dataset.serialState === 'connected'");
    browser.wait_for(
        "(() => { const one = document.querySelector('#screen canvas'); \
         return String(one.getContext('2d').getImageData(1, 1, 1, 1).data) === '27,33,40,255'; })()",
    );
    browser.screenshot(&results().join(PAGE));
    assert!(vm.power_off()?.success());
    Ok(())
}

/// Waits for a screenshot that meets a condition. The error has the log of Weston.
fn wait_for(
    vm: &mut Vm,
    is_met: impl Fn(&Picture) -> bool,
) -> Result<Picture, Box<dyn std::error::Error>> {
    for _ in 0..TRIES {
        match vm.screenshot() {
            Ok(picture) if is_met(&picture) => return Ok(picture),
            Ok(_) => {}
            Err(error) if error.to_string().contains("shows no picture") => {}
            Err(error) => return Err(error.into()),
        }
    }
    let _ = vm.synthvm(&["screenshot"], &[&results().join(SCREEN).display().to_string()]);
    let log = vm.shell("cat /tmp/weston /tmp/terminal 2>&1 || true")?;
    Err(format!("the screen does not show it; the log:\n{log}").into())
}
