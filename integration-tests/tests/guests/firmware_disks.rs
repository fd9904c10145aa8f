//! Tests of disks and discs on VMBus from which stock UEFI firmware starts a system, with our
//! driver for VMBus in an option ROM.

use std::process::Command;
use std::time::Duration;

use guest_images::cache::Cache;
use guest_images::disk::{self, GRUB_READY, PROMPT};
use guest_images::option_rom::option_rom;
use guest_images::{Ovmf, StockKernel};
use integration_tests::console::ConsoleError;
use integration_tests::firmware::{FirmwareMachine, FirmwareOptions};
use integration_tests::image::WorkDir;
use integration_tests::program;
use integration_tests::runner::{Test, TestResult};

/// Timeout of each step. A test host takes about 45 s from power on to the login prompt.
const LIMIT: Duration = Duration::from_secs(180);

pub(crate) fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new(
        "test_firmware_bookworm_4M_boots_debian_from_a_vmbus_disk_with_secure_boot_and_again",
        secure_boot,
    ));
    tests.push(Test::new(
        "test_firmware_trixie_4M_boots_debian_from_a_vhdx_and_grub_from_a_dvd",
        vhdx_and_dvd,
    ));
}

/// Makes the images and the driver, which is not possible inside a test host.
pub(crate) fn prepare(cache: &Cache) -> Result<(), guest_images::Error> {
    option_rom(cache)?;
    disk::grub_iso(cache, StockKernel::V6_12)?;
    StockKernel::ALL.into_iter().try_for_each(|release| disk::debian(cache, release).map(drop))
}

/// An installed Debian boots by itself through shim and GRUB. The boot entry that it adds starts it
/// again after a reboot.
fn secure_boot() -> TestResult {
    let (cache, dir) = (Cache::project(), WorkDir::new()?);
    let image = dir.copy("disk.img", &disk::debian(&cache, StockKernel::V6_1)?)?;
    let options = FirmwareOptions::new(&Ovmf::Bookworm4M.fetch(&cache)?)
        .driver(&option_rom(&cache)?)
        .secure()
        .variables(&dir.path().join("variables"))
        .disk(&image);
    let mut machine = FirmwareMachine::start(&options)?;
    log_in(&mut machine)?;
    let console = &mut machine.console;
    assert_eq!(console.run("findmnt -n -o SOURCE /", PROMPT, LIMIT)?, "/dev/sda2\n");
    let secure = console.run("dmesg | grep -c 'Secure boot enabled'", PROMPT, LIMIT)?;
    assert_eq!(secure, "1\n");
    let make = "efibootmgr -q -c -d /dev/sda -p 1 -L Again -l '\\EFI\\debian\\shimx64.efi'";
    console.run(make, PROMPT, LIMIT)?;
    console.send("reboot\n")?;
    let before = log_in(&mut machine)?;
    assert!(before.contains("\"Again\""), "{before}");
    machine.console.send("poweroff\n")?;
    assert!(machine.wait()?.success(), "{}", machine.said());
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
    let mut machine = FirmwareMachine::start(&base.clone().disk(&image).cpus(2).memory("5G"))?;
    log_in(&mut machine)?;
    assert_eq!(machine.console.run("nproc", PROMPT, LIMIT)?, "2\n");
    machine.console.send("poweroff\n")?;
    assert!(machine.wait()?.success(), "{}", machine.said());

    let disc = disk::grub_iso(&cache, StockKernel::V6_12)?;
    let mut machine = FirmwareMachine::start(&base.disc(&disc))?;
    machine.console.wait(GRUB_READY, LIMIT)?;
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
