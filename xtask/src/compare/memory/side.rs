//! The two machines: the same guest with a balloon, in SynthVM and in QEMU.

use guest_images::GuestImage;
use guest_report::agent::Action;

use super::super::machine::{Machine, Size};

/// Guest RAM of each machine, and the part that it gives to the host, in MiB.
pub(super) const MEMORY_MIB: u32 = 1024;
pub(super) const BALLOON_MIB: u32 = 512;

/// A machine with a balloon.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) machine: Machine,
}

impl Side {
    /// Boots both machines.
    pub(super) fn both(guest: &GuestImage, cpus: u32) -> Result<[Side; 2], String> {
        let size = Size { cpus, memory_mib: MEMORY_MIB };
        // The policy changes nothing by itself during the measurements.
        let memory = format!("{MEMORY_MIB}M,min=256M,start-delay=3600");
        let synthvm = Machine::synthvm(guest, size, |options| options.memory(&memory))?;
        let device = ["-device", "virtio-balloon-pci"].map(str::to_owned);
        let qemu = Machine::qemu("QEMU", guest, size, &device)?;
        Ok([
            // The guest reports its memory immediately, not after 45 s.
            Side { machine: synthvm }.load("hv_balloon", "pressure_report_delay=0")?,
            Side { machine: qemu }.load("virtio_balloon", "")?,
        ])
    }

    fn load(mut self, name: &str, parameters: &str) -> Result<Side, String> {
        let (name, parameters) = (name.to_owned(), parameters.to_owned());
        self.machine.ask::<serde_json::Value>(Action::LoadModule { name, parameters })?;
        // SynthVM asks for nothing before the first report.
        self.machine.wait_for_balloon()?;
        Ok(self)
    }

    /// Lets the guest write to nearly all of its memory, and free it again.
    pub(super) fn use_all_memory(&mut self) -> Result<(), String> {
        let mib = MEMORY_MIB - 256;
        let script = format!(
            "mkdir -p /run/fill && mount -t tmpfs -o size={MEMORY_MIB}m none /run/fill && \
             dd if=/dev/zero of=/run/fill/file bs=1M count={mib} 2> /dev/null && umount /run/fill"
        );
        self.machine.run(&["sh", "-c", &script]).map(drop)
    }
}
