//! The inner half of the demo: boots the guest and shows both sides.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use guest_images::GuestImage;
use guest_images::packages::sha256_file;
use guest_report::agent::{Action, Event, PatternRange};
use integration_tests::host::is_emulated;
use integration_tests::image::{WorkDir, first_difference};
use integration_tests::vm::{Vm, VmOptions};

use super::{FINDINGS, Findings, Steps};
use crate::{inner, style};

/// Bytes of the demo's disk: an emulated guest reads all of it within seconds.
const DISK_BYTES: u64 = 24 << 20;
/// The guest's write, in the middle of the disk: offset, length and seed.
const PATTERN: (u64, u64, u64) = (8 << 20, 4 << 20, 42);

pub(super) fn inside(guest: &GuestImage) -> Result<(), String> {
    let mut steps = Steps::new();
    let mut found = Findings::default();

    let dir = WorkDir::new().map_err(|error| error.to_string())?;
    let disk = dir.image("disk.img", DISK_BYTES, 1).map_err(|error| error.to_string())?;
    // The console is verbose on purpose, because the demo shows the boot.
    let mut options = VmOptions::new(guest).cpus(2).cmdline("loglevel=6").disk(&disk);
    if is_emulated() {
        // The emulated CPU hides changes of XCR0 from its KVM. The guest kernel would print long
        // messages, and not use XSAVE.
        options = options.cmdline("noxsave");
    }
    let mut vm =
        steps.run("boot", "booting the guest: 2 vCPUs, 512 MiB, one disk on VMBus", || {
            boot(&options, &mut found)
        })?;

    let before = vm.inspect().map_err(|error| error.to_string())?;
    found.disk_sha256_match =
        steps.run("read", "the whole disk, read by the guest and by the host", || {
            read(&mut vm, &disk)
        })?;
    let written = steps.run(
        "write",
        "4 MiB written and flushed by the guest, looked for in the image",
        || write(&mut vm, &disk),
    )?;

    style::heading("the view of the host (synthvm inspect)");
    print!("{}", vm.inspect_text().map_err(|error| error.to_string())?);
    let after = vm.inspect().map_err(|error| error.to_string())?;
    found.channels = after.channels.len();
    found.gpadls = after.gpadls.len();
    found.gpadl_pages = after.gpadls.iter().map(|gpadl| gpadl.pages).sum();
    found.doorbell_user_exits = after.doorbell_exits();
    let requests: u64 = after
        .disks
        .iter()
        .zip(&before.disks)
        .map(|(after, before)| after.requests - before.requests)
        .sum();
    println!(
        "    {requests} disk requests, {} of their doorbells left the kernel, {} bytes copied on \
        the way",
        found.doorbell_user_exits,
        after.disks.iter().map(|disk| disk.copied_bytes).sum::<u64>()
    );

    let ended_well = steps.run("power_off", "the guest powers off", || {
        let status = vm.power_off().map_err(|error| error.to_string())?;
        println!("    synthvm ended with {status}");
        Ok(status.success())
    })?;
    found.ok = found.disk_sha256_match
        && written
        && ended_well
        && found.doorbell_user_exits == 0
        && !found.vmbus.is_empty();
    found.seconds = steps.seconds;
    inner::leave(FINDINGS, &found)
}

fn boot(options: &VmOptions, found: &mut Findings) -> Result<Vm, String> {
    let mut vm = Vm::start(options).map_err(|error| error.to_string())?;
    let up = AtomicBool::new(false);
    let console = vm.console_path();
    let ready = std::thread::scope(|scope| {
        scope.spawn(|| follow(&console, &up));
        let ready = vm.wait_ready();
        up.store(true, Ordering::Release);
        ready
    });
    if let Event::Ready { kernel, cpus, clocksource, .. } =
        ready.map_err(|error| error.to_string())?
    {
        println!("    guest: Linux {kernel}, {cpus} CPUs, clocksource {clocksource}");
        found.kernel = kernel;
    }
    vm.disks(1).map_err(|error| error.to_string())?;
    let bus = vm.vmbus().map_err(|error| error.to_string())?;
    found.vmbus = bus.version.unwrap_or_default();
    println!("    guest: VMBus version {} negotiated", found.vmbus);
    for device in bus.devices {
        let driver = device.driver.as_deref().unwrap_or("no driver");
        println!(
            "    guest: channel {} {} ({driver}), channels {:?}",
            device.id, device.device_id, device.channels
        );
    }
    Ok(vm)
}

/// Prints the console as it grows, until the guest is up.
fn follow(console: &Path, up: &AtomicBool) {
    let mut shown = 0;
    loop {
        let last = up.load(Ordering::Acquire);
        let mut text = Vec::new();
        let read = File::open(console).and_then(|mut file| file.read_to_end(&mut text));
        if read.is_ok() {
            let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            for line in String::from_utf8_lossy(text.get(shown..whole).unwrap_or_default()).lines()
            {
                println!("    | {}", line.trim_end());
            }
            shown = shown.max(whole);
        }
        if last {
            return;
        }
        // The delay is for readability; no result depends on it.
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn read(vm: &mut Vm, disk: &Path) -> Result<bool, String> {
    let host = sha256_file(disk).map_err(|error| error.to_string())?;
    println!("    host   sha256 {host}");
    let guest = vm.sha256("/dev/sda").map_err(|error| error.to_string())?;
    println!("    guest  sha256 {} ({} bytes)", guest.sha256, guest.bytes);
    Ok(guest.sha256 == host && guest.bytes == DISK_BYTES)
}

fn write(vm: &mut Vm, disk: &Path) -> Result<bool, String> {
    let (offset, length, seed) = PATTERN;
    let range = PatternRange { path: "/dev/sda".into(), offset, length, seed, direct: true };
    vm.tell(Action::WritePattern(range)).map_err(|error| error.to_string())?;
    let difference =
        first_difference(disk, offset, length, seed).map_err(|error| error.to_string())?;
    match difference {
        None => println!("    the image holds all {length} bytes"),
        Some(at) => println!("    the image differs from byte {at} on"),
    }
    Ok(difference.is_none())
}
