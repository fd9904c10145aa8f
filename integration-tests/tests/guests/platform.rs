//! Tests of the machine itself: its identity, as the guest's own drivers see it, its PVH entry, and
//! the line that installs a system.

use std::process::Command;
use std::time::{Duration, Instant};

use guest_images::cache::Cache;
use guest_images::disk::{self, GRUB_READY};
use guest_images::firmware::{OvmfFiles, cloudhv};
use guest_images::option_rom::option_rom;
use guest_images::{Ovmf, StockKernel, kernel};
use guest_report::agent::Action;
use integration_tests::firmware::{FirmwareMachine, FirmwareOptions};
use integration_tests::image::WorkDir;
use integration_tests::program;
use integration_tests::runner::{Test, TestResult};
use integration_tests::vm::{Vm, VmError, VmOptions};

use crate::common::{self, boot};
use crate::display;

const NAME: &str = "test_identity_is_in_smbios_and_a_new_generation_reseeds_the_kernel";

const UUID: &str = "01234567-89ab-cdef-0123-456789abcdef";

/// The kernel's line when it has learnt of a new generation id.
const RESEEDED: &str = "crng reseeded due to virtual machine fork";

/// Timeout from power on to the disc's boot loader.
const BOOT_LIMIT: Duration = Duration::from_secs(120);

/// Timeout of the guest's reaction to an event.
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn add(tests: &mut Vec<Test>, kernel: StockKernel) {
    common::add(tests, kernel, NAME, identity);
}

/// Adds the tests that one kernel suffices for.
pub(crate) fn add_once(tests: &mut Vec<Test>) {
    let name = "test_boot_of_a_vmlinux_through_its_pvh_entry_on_6.12";
    tests.push(Test::new(name.to_owned(), pvh));
    let name = "test_install_creates_the_disk_and_starts_the_disc";
    tests.push(Test::new(name.to_owned(), install));
    let name = "test_firmware_cloudhv_starts_grub_from_a_dvd";
    tests.push(Test::new(name.to_owned(), start_cloudhv));
}

/// Unpacks and fetches what the tests need, which is not possible inside a test host.
pub(crate) fn prepare(cache: &Cache) -> Result<(), guest_images::Error> {
    let image = common::image(StockKernel::V6_12)?;
    kernel::vmlinux(cache, &image.kernel)?;
    // A suite that changes each day: without it, its one test fails and no other.
    if let Err(error) = cloudhv(cache) {
        eprintln!("{error}");
    }
    Ok(())
}

/// An ELF kernel starts through its PVH entry, with its initial RAM disk and command line, and again
/// after a reset.
fn pvh() -> TestResult {
    let mut image = common::image(StockKernel::V6_12)?;
    image.kernel = kernel::vmlinux(&Cache::project(), &image.kernel)?;
    let mut vm = boot(&VmOptions::new(&image).cpus(2).memory("5G").cmdline("synthvm.pvh"))?;
    for _ in 0..2 {
        assert_eq!(vm.ask::<u32>(Action::OnlineCpus)?, 2);
        assert!(vm.shell("cat /proc/cmdline")?.contains("synthvm.pvh"));
        let total = vm.shell("grep MemTotal /proc/meminfo")?;
        let kib: u64 = total.split_whitespace().nth(1).unwrap_or_default().parse()?;
        assert!((4 << 20..5 << 20).contains(&kib), "{total}");
        // The entry takes the memory map and the RSDP from the PVH structure.
        let log = vm.shell("dmesg")?;
        assert!(log.contains("ACPI: RSDP 0x00000000000E0000"), "{log}");
        assert!(!log.contains("Command line too long"), "{log}");
        vm.control("reset")?;
        vm.wait_ready()?;
    }
    assert!(vm.power_off()?.success());
    Ok(())
}

/// The ELF image reads a VMBus disc through our driver, whose ROM is on its PCI bus.
fn start_cloudhv() -> TestResult {
    let cache = Cache::project();
    let files = OvmfFiles { code: cloudhv(&cache)?, ..Ovmf::Trixie4M.fetch(&cache)? };
    let disc = disk::grub_iso(&cache, StockKernel::V6_12)?;
    let options = FirmwareOptions::new(&files).driver(&option_rom(&cache)?).disc(&disc).cpus(2);
    let mut machine = FirmwareMachine::start(&options)?;
    machine.console.wait(GRUB_READY, BOOT_LIMIT)?;
    Ok(())
}

/// The one line that installs a system creates the disk, and firmware starts the disc.
fn install() -> TestResult {
    let (cache, dir) = (Cache::project(), WorkDir::new()?);
    let disc = disk::grub_iso(&cache, StockKernel::V6_12)?;
    let new = dir.path().join("new.vhdx");
    let options = FirmwareOptions::new(&Ovmf::Trixie4M.fetch(&cache)?)
        .driver(&option_rom(&cache)?)
        .argument("--install", &disc.display().to_string())
        .argument("--disk", &format!("{},size=1G", new.display()));
    let mut machine = FirmwareMachine::start(&options)?;
    machine.console.wait(GRUB_READY, BOOT_LIMIT)?;
    drop(machine);
    let info = Command::new(program::path()).args(["image", "info"]).arg(&new).output()?;
    assert!(info.status.success() && String::from_utf8_lossy(&info.stdout).contains("vhdx"));
    assert!(dir.path().join("new.vhdx.vars").exists());
    Ok(())
}

fn identity(kernel: StockKernel) -> TestResult {
    // The cloud flavour of 6.1 has no driver for the generation id.
    let image = display::guest(kernel).build()?;
    let options = VmOptions::new(&image)
        .argument("--uuid", UUID)
        .argument("--smbios", "serial=S-1,asset-tag=A-2");
    let mut vm = boot(&options)?;
    for (name, value) in [
        ("product_uuid", UUID),
        ("product_serial", "S-1"),
        ("chassis_asset_tag", "A-2"),
        ("sys_vendor", "SynthVM"),
        ("product_name", "Virtual Machine"),
    ] {
        let found = vm.shell(&format!("cat /sys/class/dmi/id/{name}"))?;
        assert_eq!(found.trim(), value, "{name}");
    }
    assert_eq!(reseeds(&mut vm)?, 0);
    for times in 1..=2 {
        vm.control("new-generation")?;
        wait_for_reseeds(&mut vm, times)?;
    }
    // A reset keeps the id, and the guest finds its tables again.
    vm.control("reset")?;
    vm.wait_ready()?;
    assert_eq!(vm.shell("cat /sys/class/dmi/id/product_uuid")?.trim(), UUID);
    assert_eq!(reseeds(&mut vm)?, 0);
    vm.control("new-generation")?;
    wait_for_reseeds(&mut vm, 1)?;
    let log = vm.shell("dmesg")?;
    assert!(!log.contains("ACPI Error") && !log.contains("ACPI BIOS Error"), "{log}");
    assert!(vm.power_off()?.success());
    Ok(())
}

fn reseeds(vm: &mut Vm) -> Result<usize, VmError> {
    Ok(vm.shell("dmesg")?.matches(RESEEDED).count())
}

fn wait_for_reseeds(vm: &mut Vm, expected: usize) -> TestResult {
    let end = Instant::now() + LIMIT;
    while reseeds(vm)? < expected {
        if Instant::now() > end {
            return Err(format!("the kernel says nothing: {}", vm.shell("dmesg")?).into());
        }
    }
    assert_eq!(reseeds(vm)?, expected);
    Ok(())
}
