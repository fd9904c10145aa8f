//! A machine of the comparison: a guest in SynthVM or in QEMU.

use std::time::{Duration, Instant};

use guest_images::GuestImage;
use guest_report::agent::{Action, Event, Output};
use integration_tests::host::is_emulated;
use integration_tests::qemu::QemuGuest;
use integration_tests::vm::{BOOT_LIMIT, Vm, VmOptions};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::cost::Cost;

/// Timeout for a program in a guest, in seconds: a load takes at most about 10 s in an emulated
/// host. After the timeout, the guest is lost.
const RUN_LIMIT_S: u64 = 40;

/// The peer's processor: the host's, with KVM's clock and its end of interrupt without an exit.
/// Without that clock its guest would read the time from a timer that QEMU emulates, with an exit
/// for each read. The disabled features concern sleep, and do not speed up a device; with all of
/// them, the emulated host's processor eventually ran that guest without end.
const PEER_CPU: &str = "host,kvm-asyncpf=off,kvm-asyncpf-int=off,kvm-poll-control=off,kvm-steal-time=off,kvm-pv-unhalt=off";

/// The size of a machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) cpus: u32,
    pub(super) memory_mib: u32,
}

/// A running machine.
#[derive(Debug)]
pub(super) struct Machine {
    /// The name for people.
    pub(super) name: &'static str,
    /// A text that identifies the device's lines of the guest's `/proc/interrupts`.
    interrupt: &'static str,
    program: Program,
}

#[derive(Debug)]
enum Program {
    SynthVm(Box<Vm>),
    Qemu(Box<QemuGuest>),
}

impl Machine {
    /// Boots a guest under SynthVM with the device that `device` adds.
    pub(super) fn synthvm(
        guest: &GuestImage,
        size: Size,
        device: impl FnOnce(VmOptions) -> VmOptions,
    ) -> Result<Machine, String> {
        let options =
            VmOptions::new(guest).cpus(size.cpus).memory(&format!("{}M", size.memory_mib));
        // The host's APICs are emulated in software. The peer has the same feature under another
        // name (KVM's paravirtual end of interrupt).
        let options = options.argument("--hyperv", "vapic=on");
        let options = words().into_iter().fold(options, VmOptions::cmdline);
        let vm = Vm::boot(&device(options)).map_err(|error| error.to_string())?;
        let program = Program::SynthVm(Box::new(vm));
        Ok(Machine { name: "SynthVM", interrupt: "HYP", program })
    }

    /// Boots a guest under QEMU with the virtio device of these options.
    pub(super) fn qemu(
        name: &'static str,
        guest: &GuestImage,
        size: Size,
        device: &[String],
    ) -> Result<Machine, String> {
        let machine = [
            ["-machine", "q35,accel=kvm", "-cpu", PEER_CPU, "-name", "peer,debug-threads=on"]
                .map(str::to_owned)
                .to_vec(),
            ["-m", &size.memory_mib.to_string(), "-smp", &size.cpus.to_string()]
                .map(str::to_owned)
                .to_vec(),
            device.to_vec(),
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
        Ok(Machine { name, interrupt: "virtio", program: Program::Qemu(Box::new(guest)) })
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

    /// Returns the clock source of the guest's kernel.
    pub(super) fn clock(&mut self) -> Result<String, String> {
        let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource".to_owned();
        let text: String = self.ask(Action::ReadFile { path })?;
        Ok(text.trim().to_owned())
    }

    /// Returns the number of interrupts of the device so far, on all vCPUs.
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
        match &self.program {
            Program::SynthVm(vm) => {
                let inspect = vm.inspect().map_err(|error| error.to_string())?;
                let exits = inspect.vcpus.iter().map(|vcpu| &vcpu.exits);
                let user =
                    exits.map(|e| e.post_message + e.signal_event + e.mmio + e.msr + e.other).sum();
                Cost::read(inspect.machine.pid, Some(user))
            }
            Program::Qemu(guest) => Cost::read(guest.pid(), None),
        }
    }

    /// Sets the size that the guest shall have.
    pub(super) fn set_memory(&mut self, mib: u32) -> Result<(), String> {
        match &mut self.program {
            Program::SynthVm(vm) => {
                let request = json!({"do": "memory-set", "size": format!("{mib}M")});
                vm.request(&request).map(drop).map_err(|error| error.to_string())
            }
            Program::Qemu(guest) => guest.set_balloon(mib).map_err(|error| error.to_string()),
        }
    }

    /// Returns the guest's size, as the program of the machine sees it.
    pub(super) fn memory_mib(&mut self) -> Result<u32, String> {
        match &mut self.program {
            Program::SynthVm(vm) => {
                let status = vm.request(&json!({"do": "memory-status"}));
                let status = status.map_err(|error| error.to_string())?;
                let assigned = status["assigned"].as_u64().map(|bytes| bytes >> 20);
                let mib = assigned.and_then(|mib| u32::try_from(mib).ok());
                mib.ok_or_else(|| format!("no size in {status}"))
            }
            Program::Qemu(guest) => guest.balloon().map_err(|error| error.to_string()),
        }
    }

    /// Waits until the guest's balloon can be asked for memory.
    pub(super) fn wait_for_balloon(&mut self) -> Result<(), String> {
        let Program::SynthVm(vm) = &self.program else { return Ok(()) };
        let end = Instant::now() + BOOT_LIMIT;
        loop {
            let status = vm.request(&json!({"do": "memory-status"}));
            let status = status.map_err(|error| error.to_string())?;
            if !status["demand"].is_null() {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(format!("the guest has not reported its memory: {status}"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Returns the bytes of the host's memory that the machine's process has mapped.
    pub(super) fn resident(&self) -> Result<u64, String> {
        let pid = match &self.program {
            Program::SynthVm(vm) => vm.pid(),
            Program::Qemu(guest) => guest.pid(),
        };
        let path = format!("/proc/{pid}/status");
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let value = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = value.and_then(|value| value.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.map(|kib| kib << 10).ok_or_else(|| format!("{path} has no VmRSS"))
    }

    /// Powers the guest off.
    pub(super) fn power_off(mut self) -> Result<(), String> {
        self.ask::<serde_json::Value>(Action::Poweroff)?;
        let ended_well = match self.program {
            Program::SynthVm(mut vm) => vm.wait().map_err(|error| error.to_string())?.success(),
            Program::Qemu(guest) => guest.wait().map_err(|error| error.to_string())?,
        };
        if ended_well { Ok(()) } else { Err(format!("{} did not end well", self.name)) }
    }

    /// Sends a request to the guest's agent and returns the value of its reply.
    pub(super) fn ask<T: DeserializeOwned>(&mut self, action: Action) -> Result<T, String> {
        match &mut self.program {
            Program::SynthVm(vm) => vm.ask(action).map_err(|error| error.to_string()),
            Program::Qemu(guest) => guest
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
