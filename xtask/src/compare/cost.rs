//! The costs of a machine for its host: processor time and sleeps by thread, and KVM's counters.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::threads;

/// The folder of KVM's counters: it has a folder `PID-FD` for each machine, with a file for each
/// counter (sums over the vCPUs).
const KVM: &str = "/sys/kernel/debug/kvm";

/// The counters since the machine's start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Cost {
    /// Processor time of the vCPU threads, including the guest's own, in seconds.
    pub(super) vcpu_seconds: f64,
    /// Processor time of all other threads of the process, in seconds.
    pub(super) device_seconds: f64,
    /// Number of sleeps of these other threads.
    pub(super) device_sleeps: f64,
    /// Exits from the guest, including those that the kernel handles.
    pub(super) exits: f64,
    /// Exits for port accesses.
    pub(super) port_exits: f64,
    /// Exits that user space handled, except for ports.
    pub(super) user_exits: f64,
}

impl Cost {
    /// Reads the counters of a process that runs one machine. `user_exits` is the program's own
    /// count; without it, the sum of KVM's counts of signals and of memory-mapped accesses that it
    /// could not handle is used.
    pub(super) fn read(pid: u32, user_exits: Option<u64>) -> Result<Cost, String> {
        let threads = Threads::read(pid)?;
        let kvm = kvm_folder(pid)?;
        let count = |name: &str| -> Result<f64, String> {
            let path = kvm.join(name);
            let text = read(&path)?;
            text.trim().parse().map_err(|_| format!("{}: {text:?} is no number", path.display()))
        };
        let user_exits = match user_exits {
            Some(exits) => exits as f64,
            None => count("mmio_exits")? + count("signal_exits")?,
        };
        Ok(Cost {
            vcpu_seconds: threads.vcpu_ns as f64 / 1e9,
            device_seconds: threads.device_ns as f64 / 1e9,
            device_sleeps: threads.device_sleeps as f64,
            exits: count("exits")?,
            port_exits: count("io_exits")?,
            user_exits,
        })
    }

    /// Combines each counter with that of `other`.
    pub(super) fn with(self, other: Cost, of: impl Fn(f64, f64) -> f64) -> Cost {
        Cost {
            vcpu_seconds: of(self.vcpu_seconds, other.vcpu_seconds),
            device_seconds: of(self.device_seconds, other.device_seconds),
            device_sleeps: of(self.device_sleeps, other.device_sleeps),
            exits: of(self.exits, other.exits),
            port_exits: of(self.port_exits, other.port_exits),
            user_exits: of(self.user_exits, other.user_exits),
        }
    }
}

#[derive(Debug, Default)]
struct Threads {
    vcpu_ns: u64,
    device_ns: u64,
    device_sleeps: u64,
}

impl Threads {
    fn read(pid: u32) -> Result<Threads, String> {
        let mut sums = Threads::default();
        let mut all = threads::by_id(pid)?;
        if let Some(vhost) = vhost_thread(pid) {
            all.extend(threads::by_id(vhost)?);
        }
        for thread in all.into_values() {
            if thread.is_vcpu() {
                sums.vcpu_ns += thread.ns;
            } else {
                sums.device_ns += thread.ns;
                sums.device_sleeps += thread.sleeps;
            }
        }
        Ok(sums)
    }
}

/// Returns the kernel's thread that runs vhost devices for process `pid`, if it is not a thread of
/// the process itself.
fn vhost_thread(pid: u32) -> Option<u32> {
    let name = format!("vhost-{pid}");
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let id = entry.file_name().to_string_lossy().parse().ok()?;
        let found = fs::read_to_string(entry.path().join("comm")).ok()?;
        (id != pid && found.trim() == name).then_some(id)
    })
}

/// Makes KVM's counters readable, if they are not yet.
pub(super) fn prepare() -> Result<(), String> {
    if Path::new(KVM).is_dir() {
        return Ok(());
    }
    let mounted =
        Command::new("mount").args(["-t", "debugfs", "debugfs", "/sys/kernel/debug"]).output();
    match mounted {
        Ok(output) if output.status.success() && Path::new(KVM).is_dir() => Ok(()),
        _ => Err(format!(
            "{KVM} cannot be read: KVM's counters are for root, and debugfs has to be mounted"
        )),
    }
}

fn kvm_folder(pid: u32) -> Result<PathBuf, String> {
    let prefix = format!("{pid}-");
    let entries = fs::read_dir(KVM).map_err(|error| format!("{KVM}: {error}"))?;
    entries
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .ok_or_else(|| format!("{KVM} has no machine of process {pid}"))
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_cost_with_another_is_counter_by_counter() {
        let one = Cost { exits: 5.0, device_sleeps: 1.0, ..Cost::default() };
        let two = Cost { exits: 2.0, ..Cost::default() };
        let difference = one.with(two, |a, b| a - b);
        assert_eq!((difference.exits, difference.device_sleeps), (3.0, 1.0));
    }
}
