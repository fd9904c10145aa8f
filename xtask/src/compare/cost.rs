//! The costs of a machine for its host: processor time and sleeps by thread, and KVM's counters.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

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
        let mut threads = Threads::default();
        let mut all = by_thread(pid)?;
        if let Some(vhost) = vhost_thread(pid) {
            all.extend(by_thread(vhost)?);
        }
        for (name, ns, sleeps) in all.into_values() {
            if is_vcpu(&name) {
                threads.vcpu_ns += ns;
            } else {
                threads.device_ns += ns;
                threads.device_sleeps += sleeps;
            }
        }
        Ok(threads)
    }
}

/// Returns whether the name is that of a vCPU thread: SynthVM's `vcpu0` or QEMU's `CPU 0/KVM`.
fn is_vcpu(thread: &str) -> bool {
    thread.starts_with("vcpu") || thread.starts_with("CPU ")
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

/// Returns the name, the processor time in nanoseconds and the sleeps of each thread.
fn by_thread(pid: u32) -> Result<BTreeMap<u32, (String, u64, u64)>, String> {
    let folder = PathBuf::from(format!("/proc/{pid}/task"));
    let mut threads = BTreeMap::new();
    for entry in
        fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?.flatten()
    {
        let path = entry.path();
        // A thread may end during the loop.
        let (Ok(name), Ok(times), Ok(status)) =
            (read(&path.join("comm")), read(&path.join("schedstat")), read(&path.join("status")))
        else {
            continue;
        };
        let ns = times.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0);
        let sleeps = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        let sleeps = sleeps.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        let id = entry.file_name().to_string_lossy().parse().unwrap_or(0);
        threads.insert(id, (name.trim().to_owned(), ns, sleeps));
    }
    Ok(threads)
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
    fn test_threads_of_this_process_are_found_with_their_time() {
        let threads = by_thread(std::process::id()).unwrap();
        let (name, ns, _) = &threads[&std::process::id()];
        assert!(!name.is_empty() && *ns > 0, "{threads:?}");
    }

    #[test]
    fn test_vcpu_threads_of_both_programs_are_distinguished_from_others() {
        assert!(is_vcpu("vcpu0") && is_vcpu("CPU 1/KVM"));
        assert!(!is_vcpu("IO iothread0") && !is_vcpu("storage-0.0"));
    }

    #[test]
    fn test_cost_with_another_is_counter_by_counter() {
        let one = Cost { exits: 5.0, device_sleeps: 1.0, ..Cost::default() };
        let two = Cost { exits: 2.0, ..Cost::default() };
        let difference = one.with(two, |a, b| a - b);
        assert_eq!((difference.exits, difference.device_sleeps), (3.0, 1.0));
    }
}
