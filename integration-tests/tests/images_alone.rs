//! Tests of bootable images in a plain emulator without SynthVM: stock firmware starts them.

use std::time::Duration;

use guest_images::cache::Cache;
use guest_images::disk::{self, Application, GRUB_READY, PROMPT, SYSTEMD_BOOT_ENTRY};
use guest_images::{Ovmf, StockKernel};
use integration_tests::firmware::{FirmwareMachine, FirmwareOptions};
use integration_tests::image::WorkDir;

const LIMIT: Duration = Duration::from_secs(180);

/// Boots an installed Debian, with Secure Boot if the firmware has it, changes its boot entries,
/// and boots it again.
fn boots(firmware: Ovmf, release: StockKernel) {
    let cache = Cache::project();
    let dir = WorkDir::new().unwrap();
    let image = dir.copy("disk.img", &disk::debian(&cache, release).unwrap()).unwrap();
    let options = FirmwareOptions::new(&firmware.fetch(&cache).unwrap()).secure().disk(&image);
    let mut machine = FirmwareMachine::emulated(&options).unwrap();
    let console = &mut machine.console;
    console.wait(GRUB_READY, LIMIT).unwrap();
    console.wait("login: ", LIMIT).unwrap();
    console.send("root\n").unwrap();
    console.wait(PROMPT, LIMIT).unwrap();
    let state = console.run("systemctl is-system-running --wait", PROMPT, LIMIT).unwrap();
    assert_eq!(state, "running\n");
    let secure =
        console.run("dmesg | grep -c 'Secure boot enabled' || true", PROMPT, LIMIT).unwrap();
    assert_eq!(secure, if firmware.has_secure_boot() { "1\n" } else { "0\n" });
    let made = "efibootmgr -q -c -d /dev/vda -p 1 -L Again -l '\\EFI\\debian\\shimx64.efi'";
    console.run(made, PROMPT, LIMIT).unwrap();

    console.send("reboot\n").unwrap();
    let before = console.wait(GRUB_READY, LIMIT).unwrap();
    assert!(before.contains("starting Boot0003 \"Again\""), "{before}");
    console.wait("login: ", LIMIT).unwrap();
    console.send("root\n").unwrap();
    console.wait(PROMPT, LIMIT).unwrap();
    console.send("poweroff\n").unwrap();
    assert!(machine.wait().unwrap().success());
}

#[test]
fn test_debian_12_on_a_disk_boots_from_stock_firmware_and_again_by_a_new_boot_entry() {
    boots(Ovmf::Bookworm4M, StockKernel::V6_1);
}

#[test]
fn test_debian_13_on_a_disk_boots_from_stock_firmware_and_again_by_a_new_boot_entry() {
    boots(Ovmf::Trixie4M, StockKernel::V6_12);
}

#[test]
fn test_discs_start_from_stock_firmware() {
    let cache = Cache::project();
    let firmware = Ovmf::Trixie4M.fetch(&cache).unwrap();
    for (disc, words) in [
        (disk::grub_iso(&cache, StockKernel::V6_12).unwrap(), GRUB_READY),
        (disk::ipxe_iso(&cache).unwrap(), "iPXE initialising devices"),
    ] {
        let options = FirmwareOptions::new(&firmware).disc(&disc);
        let mut machine = FirmwareMachine::emulated(&options).unwrap();
        machine.console.wait(words, LIMIT).unwrap();
    }
}

#[test]
fn test_applications_on_disks_start_from_stock_firmware() {
    let cache = Cache::project();
    let firmware = Ovmf::Trixie4M.fetch(&cache).unwrap();
    let dir = WorkDir::new().unwrap();
    let script = "echo The script runs\nreset -s\n";
    for (application, prompt, words) in [
        (Application::Shell, "any other key to continue", "The script runs"),
        (Application::SystemdBoot, "any other key to continue", "The script runs"),
        (Application::Memtest, "any other key to continue", "Memtest86+ v"),
    ] {
        let image = dir.copy("disk.img", &application.disk(&cache, script).unwrap()).unwrap();
        let options = FirmwareOptions::new(&firmware).disk(&image);
        let mut machine = FirmwareMachine::emulated(&options).unwrap();
        if application == Application::SystemdBoot {
            machine.console.wait(SYSTEMD_BOOT_ENTRY, LIMIT).unwrap();
            machine.console.send("\r").unwrap();
        }
        machine.console.wait(prompt, LIMIT).unwrap();
        machine.console.send("\r").unwrap();
        machine.console.wait(words, LIMIT).unwrap();
        if application != Application::Memtest {
            assert!(machine.wait().unwrap().success());
        }
    }
}
