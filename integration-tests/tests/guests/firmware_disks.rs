//! Tests of disks and discs on VMBus from which stock UEFI firmware starts a system, with our
//! driver for VMBus in an option ROM.

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::Command;
use std::time::Duration;

use guest_images::cache::Cache;
use guest_images::disk::{self, Application, CHOOSE_UNSIGNED, GRUB_READY, PROMPT};
use guest_images::option_rom::option_rom;
use guest_images::{Ovmf, StockKernel, swtpm};
use integration_tests::console::{Console, ConsoleError};
use integration_tests::firmware::{FirmwareMachine, FirmwareOptions};
use integration_tests::image::WorkDir;
use integration_tests::picture::Picture;
use integration_tests::program;
use integration_tests::runner::{Test, TestResult};

/// Timeout of each step. A test host takes about 45 s from power on to the login prompt.
const LIMIT: Duration = Duration::from_secs(180);

pub(crate) fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new(
        "test_firmware_bookworm_4M_boots_debian_from_a_vmbus_disk_with_secure_boot_and_a_tpm",
        secure_boot,
    ));
    tests.push(Test::new(
        "test_firmware_trixie_4M_starts_the_entry_of_systemd_boot_that_keys_choose",
        systemd_boot,
    ));
    tests.push(Test::new(
        "test_firmware_trixie_4M_shell_of_a_vmbus_disk_starts_memtest86_on_the_screen",
        memtest,
    ));
    tests.push(Test::new(
        "test_firmware_without_a_boot_device_says_so_and_shows_its_menu",
        no_boot_device,
    ));
    tests.push(Test::new(
        "test_firmware_trixie_4M_boots_debian_from_a_vhdx_to_its_screen_and_grub_from_a_dvd",
        vhdx_and_dvd,
    ));
}

/// Makes the images and the driver, which is not possible inside a test host.
pub(crate) fn prepare(cache: &Cache) -> Result<(), guest_images::Error> {
    option_rom(cache)?;
    disk::grub_iso(cache, StockKernel::V6_12)?;
    Application::SystemdBoot.disk(cache, "")?;
    Application::Memtest.disk(cache, "")?;
    StockKernel::ALL.into_iter().try_for_each(|release| disk::debian(cache, release).map(drop))
}

/// An installed Debian boots by itself through shim and GRUB, which refuse a kernel without a
/// signature. The TPM has measured the way. The boot entry that the system adds starts it again
/// after a reboot.
fn secure_boot() -> TestResult {
    let (cache, dir) = (Cache::project(), WorkDir::new()?);
    let image = dir.copy("disk.img", &disk::debian(&cache, StockKernel::V6_1)?)?;
    let (state, swtpm) = (dir.path().join("tpm"), swtpm::program(&cache)?);
    let tpm = format!("swtpm,state={},program={},presence=on", state.display(), swtpm.display());
    let options = FirmwareOptions::new(&Ovmf::Bookworm4M.fetch(&cache)?)
        .driver(&option_rom(&cache)?)
        .secure()
        .variables(&dir.path().join("variables"))
        .disk(&image)
        .cpus(4)
        .argument("--tpm", &tpm);
    let mut machine = FirmwareMachine::start(&options)?;
    log_in(&mut machine)?;
    let console = &mut machine.console;
    assert_eq!(console.run("findmnt -n -o SOURCE /", PROMPT, LIMIT)?, "/dev/sda2\n");
    assert_eq!(console.run("nproc", PROMPT, LIMIT)?, "4\n");
    let secure = console.run("dmesg | grep -c 'Secure boot enabled'", PROMPT, LIMIT)?;
    assert_eq!(secure, "1\n");
    let spcr = "dmesg | grep -c 'SPCR: console: uart,io,0x3f8,115200'";
    assert_eq!(console.run(spcr, PROMPT, LIMIT)?, "1\n");
    assert_measured(console)?;
    let make = "efibootmgr -q -c -d /dev/sda -p 1 -L Again -l '\\EFI\\debian\\shimx64.efi'";
    console.run(make, PROMPT, LIMIT)?;
    console.run(CHOOSE_UNSIGNED, PROMPT, LIMIT)?;
    // The firmware of the next start clears the TPM, unless its user refuses.
    const PRESENCE: &str = "/sys/class/tpm/tpm0/ppi";
    assert_eq!(console.run(&format!("cat {PRESENCE}/version"), PROMPT, LIMIT)?, "1.3\n");
    let request = format!("echo 5 > {PRESENCE}/request && cat {PRESENCE}/request");
    assert_eq!(console.run(&request, PROMPT, LIMIT)?, "5\n");
    console.send("reboot\n")?;
    console.wait("Press F12", LIMIT)?;
    // F12 of a VT220: the firmware's terminal has no such key, and takes ESC, which refuses.
    console.send("\x1b[24~")?;
    let before = console.wait(GRUB_READY, LIMIT)?;
    assert!(before.contains("\"Again\""), "{before}");
    console.wait("bad shim signature", LIMIT)?;
    console.wait("Press any key to continue", LIMIT)?;
    console.send("\r")?;
    console.wait("*Kernel without a signature", LIMIT)?;
    // The key that selects the entry above.
    console.send("^")?;
    console.wait("*Debian GNU/Linux", LIMIT)?;
    console.send("\r")?;
    console.wait("login: ", LIMIT)?;
    console.send("root\n")?;
    console.wait(PROMPT, LIMIT)?;
    let response = console.run(&format!("cat {PRESENCE}/response"), PROMPT, LIMIT)?;
    assert_eq!(response, "5 0xFFFFFFF0: User Abort\n");
    console.send("poweroff\n")?;
    assert!(machine.wait()?.success(), "{}", machine.said());
    Ok(())
}

/// Compares the PCRs of the TPM with those that follow from the log of firmware and boot loaders.
/// The driver for VMBus is in the log, as the drivers of all option ROMs are.
fn assert_measured(console: &mut Console) -> TestResult {
    let read = console.run("tpm2_pcrread -T device:/dev/tpm0 sha256", PROMPT, LIMIT)?;
    let log = "tpm2_eventlog /sys/kernel/security/tpm0/binary_bios_measurements > /tmp/log";
    console.run(log, PROMPT, LIMIT)?;
    let replayed = console.run("grep -A 99 '^pcrs:' /tmp/log", PROMPT, LIMIT)?;
    let (read, replayed) = (pcrs(&read), pcrs(&replayed));
    // 0 to 7 are the firmware's, 8 and 9 GRUB's, 14 shim's.
    for pcr in (0..=9).chain([14]) {
        assert!(replayed.contains_key(&pcr), "PCR {pcr} is not in the log: {replayed:?}");
    }
    for (pcr, value) in &replayed {
        assert_eq!(read.get(pcr), Some(value), "PCR {pcr}");
    }
    console.run("grep -q EV_EFI_BOOT_SERVICES_DRIVER /tmp/log", PROMPT, LIMIT)?;
    Ok(())
}

/// Returns the values of the bank of SHA-256 in the output of the TPM's tools.
fn pcrs(output: &str) -> BTreeMap<u32, String> {
    let bank = output.split_once("sha256:").map_or("", |(_, bank)| bank);
    let value = |line: &str| {
        let (pcr, value) = line.split_once(':')?;
        let value = value.trim().strip_prefix("0x")?;
        Some((pcr.trim().parse().ok()?, value.to_ascii_lowercase()))
    };
    bank.lines().skip(1).map_while(value).collect()
}

/// systemd-boot shows its menu on the screen, and starts the entry that keys choose.
fn systemd_boot() -> TestResult {
    let (cache, dir) = (Cache::project(), WorkDir::new()?);
    let loader = Application::SystemdBoot.disk(&cache, "")?;
    let options = FirmwareOptions::new(&Ovmf::Trixie4M.fetch(&cache)?)
        .driver(&option_rom(&cache)?)
        .disk(&dir.copy("loader.img", &loader)?)
        .argument("--display", "headless");
    let mut machine = FirmwareMachine::start(&options)?;
    machine.console.wait(disk::SYSTEMD_BOOT_ENTRY, LIMIT)?;
    let first = machine.wait_for_picture(LIMIT, selected_entry)?;
    machine.send_keys("down")?;
    let below = first.end..first.end + ROW;
    let second = |picture: &Picture| selected_entry(picture).filter(|rows| *rows == below);
    machine.wait_for_picture(LIMIT, second)?;
    machine.send_keys("enter")?;
    // The kernel prints its command line.
    machine.console.wait(disk::SYSTEMD_BOOT_OPTION, LIMIT)?;
    Ok(())
}

/// Rows of pixels of a row of the firmware's text.
const ROW: u32 = 19;

/// Returns the rows of pixels of a boot menu's selected entry: one row of text, the only one that
/// is filled. A line of the menu has one row of pixels.
fn selected_entry(picture: &Picture) -> Option<Range<u32>> {
    /// The firmware's light gray, and more pixels of it than the characters of a title have.
    const GRAY: [u8; 3] = [0x98; 3];
    const WIDTH: usize = 180;
    let is_filled = |row: &[[u8; 3]]| row.iter().filter(|pixel| **pixel == GRAY).count() > WIDTH;
    let rows: Vec<&[[u8; 3]]> = picture.pixels.chunks(picture.width as usize).collect();
    let runs = rows.chunk_by(|a, b| is_filled(a) == is_filled(b));
    let mut entries = Vec::new();
    let mut start = 0;
    for run in runs {
        let end = start + run.len() as u32;
        if is_filled(run[0]) && end - start == ROW {
            entries.push(start..end);
        }
        start = end;
    }
    match &entries[..] {
        [entry] => Some(entry.clone()),
        _ => None,
    }
}

/// The shell of a disk starts memtest86+, which draws on the firmware's frame buffer.
fn memtest() -> TestResult {
    let (cache, dir) = (Cache::project(), WorkDir::new()?);
    let image = Application::Memtest.disk(&cache, "")?;
    let options = FirmwareOptions::new(&Ovmf::Trixie4M.fetch(&cache)?)
        .driver(&option_rom(&cache)?)
        .disk(&dir.copy("memtest.img", &image)?)
        .argument("--display", "headless");
    let mut machine = FirmwareMachine::start(&options)?;
    machine.console.wait("any other key to continue", LIMIT)?;
    machine.send_keys("enter")?;
    machine.console.wait("Memtest86+ v", LIMIT)?;
    // Its background fills most of the screen.
    const BLUE: [u8; 3] = [0, 0, 0xAA];
    machine.wait_for_picture(LIMIT, |picture| {
        let blue = picture.pixels.iter().filter(|pixel| **pixel == BLUE).count();
        (blue > picture.pixels.len() / 2).then_some(())
    })?;
    Ok(())
}

/// The disk from which a machine starts is gone. With Secure Boot the firmware has no shell either.
fn no_boot_device() -> TestResult {
    let (cache, dir) = (Cache::project(), WorkDir::new()?);
    let options = FirmwareOptions::new(&Ovmf::Bookworm4M.fetch(&cache)?)
        .driver(&option_rom(&cache)?)
        .secure()
        .variables(&dir.path().join("variables"))
        .argument("--display", "headless");
    let mut machine = FirmwareMachine::start(&options)?;
    machine.console.wait("No bootable option or device was found", LIMIT)?;
    machine.console.wait("Press any key to enter the Boot Manager Menu", LIMIT)?;
    let picture = machine.screenshot()?;
    let lit = picture.pixels.iter().filter(|pixel| **pixel != [0; 3]).count();
    assert!(lit > 1000, "{lit} pixels of text");
    machine.send_keys("enter")?;
    machine.console.wait_any(&["Select Language", "Please select boot device"], LIMIT)?;

    // Also without any device on the bus, the driver reports it.
    drop(machine);
    let options = FirmwareOptions::new(&Ovmf::Bookworm4M.fetch(&cache)?)
        .driver(&option_rom(&cache)?)
        .secure()
        .variables(&dir.path().join("variables"))
        .argument("--services", "none")
        .argument("--on-no-boot-device", "exit");
    assert_no_boot_device(&options, "found no system to boot; check")?;
    // Firmware with a built-in shell starts it instead.
    let options = FirmwareOptions::new(&Ovmf::Trixie4M.fetch(&cache)?)
        .driver(&option_rom(&cache)?)
        .disk(&dir.empty_image("disk.img", 1 << 20)?)
        .argument("--on-no-boot-device", "exit");
    assert_no_boot_device(&options, "and starts its built-in shell; check")
}

/// Runs a machine, which must end with the status for firmware without a system to boot.
fn assert_no_boot_device(options: &FirmwareOptions, message: &str) -> TestResult {
    let mut machine = FirmwareMachine::start(options)?;
    // The end of the program ends the console.
    let ended = machine.wait_for(LIMIT)?;
    let said = machine.said();
    assert_eq!(ended.code(), Some(9), "{said}");
    assert!(said.contains(message), "{said}");
    Ok(())
}

fn vhdx_and_dvd() -> TestResult {
    let (cache, dir) = (Cache::project(), WorkDir::new()?);
    let image = dir.path().join("disk.vhdx");
    let raw = disk::debian(&cache, StockKernel::V6_12)?;
    let convert =
        Command::new(program::path()).args(["image", "convert"]).args([&raw, &image]).output()?;
    assert!(convert.status.success(), "{}", String::from_utf8_lossy(&convert.stderr));
    let base = FirmwareOptions::new(&Ovmf::Trixie4M.fetch(&cache)?).driver(&option_rom(&cache)?);
    let options = base.clone().disk(&image).cpus(2).memory("5G").argument("--display", "headless");
    let mut machine = FirmwareMachine::start(&options)?;
    log_in(&mut machine)?;
    assert_eq!(machine.console.run("nproc", PROMPT, LIMIT)?, "2\n");
    assert_frame_buffer(&mut machine)?;
    machine.console.send("poweroff\n")?;
    assert!(machine.wait()?.success(), "{}", machine.said());

    let disc = disk::grub_iso(&cache, StockKernel::V6_12)?;
    let options = base.disc(&disc).argument("--display", "headless");
    let mut machine = FirmwareMachine::start(&options)?;
    machine.console.wait(GRUB_READY, LIMIT)?;
    machine.console.wait("*UEFI firmware settings", LIMIT)?;
    machine.send_keys("down")?;
    machine.console.wait("*Power off", LIMIT)?;
    machine.send_keys("enter")?;
    assert!(machine.wait()?.success(), "{}", machine.said());
    Ok(())
}

/// Lets the guest fill the firmware's frame buffer, which its kernel uses until it has a driver for
/// the video device. The firmware's driver has ended long before.
fn assert_frame_buffer(machine: &mut FirmwareMachine) -> TestResult {
    let console = &mut machine.console;
    assert_eq!(console.run("cat /proc/fb", PROMPT, LIMIT)?, "0 EFI VGA\n");
    // The device ends after the frame.
    let fill = "tr '\\0' '\\252' < /dev/zero > /dev/fb0 2> /dev/null || true";
    console.run(fill, PROMPT, LIMIT)?;
    let picture = machine.screenshot()?;
    let filled = picture.pixels.iter().filter(|pixel| **pixel == [0xAA; 3]).count();
    // All but the cursor of the kernel's console.
    assert!(filled > picture.pixels.len() / 100 * 99, "{filled} pixels are filled");
    Ok(())
}

/// Waits for GRUB and the login prompt, and logs in. Returns the output of the firmware.
fn log_in(machine: &mut FirmwareMachine) -> Result<String, ConsoleError> {
    let before = machine.console.wait(GRUB_READY, LIMIT)?;
    machine.console.wait("login: ", LIMIT)?;
    machine.console.send("root\n")?;
    machine.console.wait(PROMPT, LIMIT)?;
    Ok(before)
}
