//! The two machines: the same guest with a disk, in SynthVM and in QEMU.

use std::path::Path;

use guest_images::GuestImage;
use guest_report::agent::Action;
use integration_tests::vm::VmOptions;

use super::super::machine::{Machine, Size};

/// Guest RAM of both machines in MiB. The initial RAM disk with fio and its libraries takes 200.
const MEMORY_MIB: u32 = 1024;

/// A machine with a disk.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) machine: Machine,
    /// The disk's name in the guest.
    pub(super) disk: &'static str,
}

impl Side {
    /// Boots a guest under SynthVM with a VMBus disk.
    pub(super) fn synthvm(guest: &GuestImage, image: &Path, cpus: u32) -> Result<Side, String> {
        let size = Size { cpus, memory_mib: MEMORY_MIB };
        let device = |options: VmOptions| options.disk_with(image, "cache=none");
        let mut machine = Machine::synthvm(guest, size, device)?;
        machine.ask::<serde_json::Value>(Action::Disks { at_least: 1, timeout_s: 60 })?;
        Ok(Side { machine, disk: "/dev/sda" })
    }

    /// Boots a guest under QEMU with a virtio-blk disk that has its own thread.
    pub(super) fn qemu(guest: &GuestImage, image: &Path, cpus: u32) -> Result<Side, String> {
        let file = image.display().to_string().replace(',', ",,");
        let drive = format!("if=none,id=disk,format=raw,cache=none,aio=io_uring,file={file}");
        let device = [
            "-object",
            "iothread,id=disk",
            "-drive",
            &drive,
            "-device",
            "virtio-blk-pci,drive=disk,iothread=disk",
        ];
        let size = Size { cpus, memory_mib: MEMORY_MIB };
        let machine = Machine::qemu("QEMU", guest, size, &device.map(str::to_owned))?;
        Ok(Side { machine, disk: "/dev/vda" })
    }

    /// Returns the disk's scheduler in the guest, which its kernel chooses.
    pub(super) fn scheduler(&mut self) -> Result<String, String> {
        let path = format!("/sys/block/{}/queue/scheduler", self.disk.trim_start_matches("/dev/"));
        let text: String = self.machine.ask(Action::ReadFile { path })?;
        let chosen = text.split(['[', ']']).nth(1);
        Ok(chosen.unwrap_or(text.trim()).to_owned())
    }
}
