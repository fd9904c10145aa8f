//! The two machines: the same guest with a disk, in SynthVM and in QEMU.

use std::path::Path;

use guest_images::GuestImage;
use guest_report::agent::{Action, Event, Output};
use integration_tests::host::is_emulated;
use integration_tests::qemu::QemuGuest;
use integration_tests::vm::{BOOT_LIMIT, Vm, VmOptions};
use serde::de::DeserializeOwned;

use super::cost::Cost;

/// Guest RAM of both machines in MiB. The initial RAM disk with fio and its libraries takes 200.
const MEMORY_MIB: u32 = 1024;

/// Timeout of a load, in seconds: a load takes at most about 10 s in an emulated host. After the
/// timeout, the guest is lost.
const RUN_LIMIT_S: u64 = 40;

/// The peer's processor: the host's, with KVM's clock and its end of interrupt without an exit.
/// Without that clock its guest would read the time from a timer that QEMU emulates, with an exit
/// for each read. The disabled features concern sleep, and do not speed up a disk; with all of
/// them, the emulated host's processor eventually ran that guest without end.
const PEER_CPU: &str = "host,kvm-asyncpf=off,kvm-asyncpf-int=off,kvm-poll-control=off,\
    kvm-steal-time=off,kvm-pv-unhalt=off";

/// A machine.
#[derive(Debug)]
pub(super) struct Side {
    /// The name for people.
    pub(super) name: &'static str,
    /// The disk's name in the guest.
    pub(super) disk: &'static str,
    /// A text that identifies the disk's lines of the guest's `/proc/interrupts`.
    interrupt: &'static str,
    machine: Machine,
}

#[derive(Debug)]
enum Machine {
    SynthVm(Box<Vm>),
    Qemu(Box<QemuGuest>),
}

impl Side {
    /// Boots a guest under SynthVM with a VMBus disk.
    pub(super) fn synthvm(guest: &GuestImage, image: &Path, cpus: u32) -> Result<Side, String> {
        let options = VmOptions::new(guest).cpus(cpus).memory(&format!("{MEMORY_MIB}M"));
        // The host's APICs are emulated in software. The peer has the same feature under another
        // name (KVM's paravirtual end of interrupt).
        let options = options.argument("--hyperv", "vapic=on");
        let options = words().into_iter().fold(options, VmOptions::cmdline);
        let vm =
            Vm::boot(&options.disk_with(image, "cache=none")).map_err(|error| error.to_string())?;
        let machine = Machine::SynthVm(Box::new(vm));
        let mut side = Side { name: "SynthVM", disk: "/dev/sda", interrupt: "HYP", machine };
        side.ask::<serde_json::Value>(Action::Disks { at_least: 1, timeout_s: 60 })?;
        Ok(side)
    }

    /// Boots a guest under QEMU with a virtio-blk disk that has its own thread.
    pub(super) fn qemu(guest: &GuestImage, image: &Path, cpus: u32) -> Result<Side, String> {
        let file = image.display().to_string().replace(',', ",,");
        let machine = [
            ["-machine", "q35,accel=kvm", "-cpu", PEER_CPU, "-name", "peer,debug-threads=on"]
                .map(str::to_owned)
                .to_vec(),
            ["-m", &MEMORY_MIB.to_string(), "-smp", &cpus.to_string()].map(str::to_owned).to_vec(),
            ["-object", "iothread,id=disk"].map(str::to_owned).to_vec(),
            vec![
                "-drive".to_owned(),
                format!("if=none,id=disk,format=raw,cache=none,aio=io_uring,file={file}"),
            ],
            ["-device", "virtio-blk-pci,drive=disk,iothread=disk"].map(str::to_owned).to_vec(),
        ]
        .concat();
        let mut guest = QemuGuest::start(guest, &machine, &words().join(" "))
            .map_err(|error| error.to_string())?;
        let ready = guest.agent.ready(BOOT_LIMIT);
        let Event::Ready { .. } =
            ready.map_err(|error| format!("QEMU's guest: {error}\n{}", guest.said()))?
        else {
            return Err("QEMU's guest did not report that it is up".to_owned());
        };
        let machine = Machine::Qemu(Box::new(guest));
        Ok(Side { name: "QEMU", disk: "/dev/vda", interrupt: "virtio", machine })
    }

    /// Writes a file in the guest.
    pub(super) fn write(&mut self, path: &str, text: String) -> Result<(), String> {
        self.ask::<serde_json::Value>(Action::WriteFile { path: path.to_owned(), text }).map(drop)
    }

    /// Runs a program in the guest and returns its output.
    pub(super) fn run(&mut self, argv: &[&str]) -> Result<String, String> {
        let words = argv.iter().map(|word| (*word).to_owned()).collect();
        let output: Output = self.ask(Action::Run { argv: words, timeout_s: RUN_LIMIT_S })?;
        match output.status {
            0 => Ok(output.stdout),
            status => Err(format!(
                "{}: {} ended with {status}: {}{}",
                self.name,
                argv.join(" "),
                output.stdout,
                output.stderr
            )),
        }
    }

    /// Returns the disk's scheduler in the guest, which its kernel chooses.
    pub(super) fn scheduler(&mut self) -> Result<String, String> {
        let path = format!("/sys/block/{}/queue/scheduler", self.disk.trim_start_matches("/dev/"));
        let text: String = self.ask(Action::ReadFile { path })?;
        let chosen = text.split(['[', ']']).nth(1);
        Ok(chosen.unwrap_or(text.trim()).to_owned())
    }

    /// Returns the clock source of the guest's kernel.
    pub(super) fn clock(&mut self) -> Result<String, String> {
        let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource".to_owned();
        let text: String = self.ask(Action::ReadFile { path })?;
        Ok(text.trim().to_owned())
    }

    /// Returns the number of interrupts of the disk so far, on all vCPUs.
    pub(super) fn interrupts(&mut self) -> Result<f64, String> {
        // Summed in the guest: the columns of counts in lines such as ` 25:  10  20  PCI-MSI
        // 16385-edge  virtio0-req.0`.
        let sum = "{for (i = 2; i <= NF && $i ~ /^[0-9]+$/; i++) sum += $i} END {print sum + 0}";
        let text =
            self.run(&["awk", &format!("/{}/ {sum}", self.interrupt), "/proc/interrupts"])?;
        text.trim()
            .parse()
            .map_err(|_| format!("{}: {text:?} is no number of interrupts", self.name))
    }

    /// Returns the costs of the machine so far.
    pub(super) fn cost(&self) -> Result<Cost, String> {
        match &self.machine {
            Machine::SynthVm(vm) => {
                let inspect = vm.inspect().map_err(|error| error.to_string())?;
                let exits = inspect.vcpus.iter().map(|vcpu| &vcpu.exits);
                let user =
                    exits.map(|e| e.post_message + e.signal_event + e.mmio + e.msr + e.other).sum();
                Cost::read(inspect.machine.pid, Some(user))
            }
            Machine::Qemu(guest) => Cost::read(guest.pid(), None),
        }
    }

    /// Powers the guest off.
    pub(super) fn power_off(mut self) -> Result<(), String> {
        self.ask::<serde_json::Value>(Action::Poweroff)?;
        let ended_well = match self.machine {
            Machine::SynthVm(mut vm) => vm.wait().map_err(|error| error.to_string())?.success(),
            Machine::Qemu(guest) => guest.wait().map_err(|error| error.to_string())?,
        };
        if ended_well { Ok(()) } else { Err(format!("{} did not end well", self.name)) }
    }

    fn ask<T: DeserializeOwned>(&mut self, action: Action) -> Result<T, String> {
        match &mut self.machine {
            Machine::SynthVm(vm) => vm.ask(action).map_err(|error| error.to_string()),
            Machine::Qemu(guest) => guest
                .agent
                .ask(action)
                .map_err(|error| format!("QEMU's guest: {error}\n{}", guest.said())),
        }
    }
}

/// Returns additional words for both guests' kernel command lines.
fn words() -> Vec<&'static str> {
    // The emulated CPU hides changes of XCR0 from its KVM.
    if is_emulated() { vec!["noxsave"] } else { Vec::new() }
}
