//! The threads of a process: processor time and sleeps.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// A thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Thread {
    /// The name.
    pub(crate) name: String,
    /// The processor time in nanoseconds.
    pub(crate) ns: u64,
    /// The number of its sleeps (voluntary context switches).
    pub(crate) sleeps: u64,
}

impl Thread {
    /// Returns whether this is a vCPU thread, by its name: SynthVM's `vcpu0` or QEMU's `CPU 0/KVM`.
    pub(crate) fn is_vcpu(&self) -> bool {
        self.name.starts_with("vcpu") || self.name.starts_with("CPU ")
    }
}

/// Returns the threads of a process by their ids.
pub(crate) fn by_id(pid: u32) -> Result<BTreeMap<u32, Thread>, String> {
    let folder = PathBuf::from(format!("/proc/{pid}/task"));
    let failed = |error| format!("{}: {error}", folder.display());
    let mut threads = BTreeMap::new();
    for entry in fs::read_dir(&folder).map_err(failed)?.flatten() {
        let read = |name: &str| fs::read_to_string(entry.path().join(name));
        // A thread may end during the loop.
        let (Ok(name), Ok(times), Ok(status)) = (read("comm"), read("schedstat"), read("status"))
        else {
            continue;
        };
        let ns = times.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0);
        let sleeps = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        let sleeps = sleeps.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        let id = entry.file_name().to_string_lossy().parse().unwrap_or(0);
        threads.insert(id, Thread { name: name.trim().to_owned(), ns, sleeps });
    }
    Ok(threads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_threads_of_this_process_are_found_with_their_time() {
        let threads = by_id(std::process::id()).unwrap();
        let thread = &threads[&std::process::id()];
        assert!(!thread.name.is_empty() && thread.ns > 0, "{threads:?}");
    }

    #[test]
    fn test_vcpu_threads_of_both_programs_are_distinguished_from_others() {
        let is_vcpu = |name: &str| Thread { name: name.to_owned(), ns: 0, sleeps: 0 }.is_vcpu();
        assert!(is_vcpu("vcpu0") && is_vcpu("CPU 1/KVM"));
        assert!(!is_vcpu("IO iothread0") && !is_vcpu("storage-0.0"));
    }
}
