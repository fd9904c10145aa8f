//! The judgement of a host's facts.

use super::capabilities::{HYPERV, MAX_VCPUS};
use super::facts::LARGE_PAGES;
use super::{Access, CAPABILITIES, Capability, Check, Facts, Group, Need, Report, State};
use crate::config::MAX_CPUS;

/// The only stable version of KVM's API.
const API_VERSION: i32 = 12;

/// Descriptors that a large machine needs: 64 disks and channels with two eventfds each, vCPUs, and
/// a reserve.
const WANTED_OPEN_FILES: u64 = 1024;

/// Free memory below which even a small guest may be too large, in bytes.
const WANTED_MEMORY: u64 = 1 << 30;

const BUILD_WITH_HYPERV: &str = "use a host kernel with CONFIG_KVM_HYPERV=y (distribution kernels \
    for x86-64 have it), \
    or run synthvm inside the test host: cargo xtask host -- COMMAND";

impl Report {
    /// Returns the report about `facts`.
    pub fn judge(facts: &Facts) -> Report {
        let mut checks = vec![device(facts), create_vm(facts)];
        checks.extend(CAPABILITIES.iter().map(|capability| judge_capability(facts, capability)));
        checks.extend([
            vcpus(facts),
            memory(facts),
            hugepages(facts),
            large_pages(facts),
            memfd(facts),
            open_files(facts),
            io_uring(facts),
        ]);
        let stock_guests =
            checks.iter().all(|check| matches!(check.state, State::Ok | State::Warn));
        let kvm = facts.kvm.display().to_string();
        Report { stock_guests, kernel: facts.kernel.clone(), kvm, checks }
    }
}

/// Returns a check without a problem.
fn fine(group: Group, name: &str, found: impl Into<String>, purpose: &str) -> Check {
    Check {
        group,
        name: name.to_owned(),
        number: None,
        state: State::Ok,
        found: found.into(),
        purpose: purpose.to_owned(),
        cost: None,
        advice: None,
    }
}

impl Check {
    fn lacking(self, state: State, cost: &str, advice: impl Into<String>) -> Check {
        Check { state, cost: Some(cost.to_owned()), advice: Some(advice.into()), ..self }
    }
}

fn error_text(error: i32) -> String {
    std::io::Error::from_raw_os_error(error).to_string()
}

fn device(facts: &Facts) -> Check {
    let path = facts.kvm.display().to_string();
    let check = |found: String| fine(Group::Access, &path, found, "access to KVM");
    let nothing_runs = "no guest can run";
    match facts.access {
        Access::Closed(error) => {
            check(error_text(error)).lacking(State::Missing, nothing_runs, open_advice(error))
        }
        Access::NotKvm(error) => {
            let advice = "name KVM's device node with --kvm; it is /dev/kvm on most hosts";
            check(format!("not KVM ({})", error_text(error))).lacking(
                State::Missing,
                nothing_runs,
                advice,
            )
        }
        Access::NoVm(version, _) | Access::Open(version) if version != API_VERSION => {
            let found = format!("API {version}, not {API_VERSION}");
            check(found).lacking(
                State::Missing,
                nothing_runs,
                "use a host kernel newer than 2.6.22",
            )
        }
        Access::NoVm(version, _) | Access::Open(version) => {
            let module = if facts.modules.is_empty() {
                "built in".to_owned()
            } else {
                facts.modules.join(", ")
            };
            let check = check(format!("API {version}, {module}"));
            if facts.modules.iter().any(|name| name == "kvm_pvm") {
                // Source: hypervisor-platform.md, section 0, 1a.
                let cost = "kvm_pvm interprets the guest's kernel and lacks instructions that \
                    stock kernels use";
                return check.lacking(State::Warn, cost, BUILD_WITH_HYPERV);
            }
            check
        }
    }
}

/// Returns advice for a device node that cannot be opened.
pub(super) fn open_advice(error: i32) -> &'static str {
    match error {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => {
            "switch virtualisation on in the firmware, or nested virtualisation if this is a VM, \
            then: \
             modprobe kvm-intel || modprobe kvm-amd; in a container, pass /dev/kvm in"
        }
        libc::EACCES | libc::EPERM => {
            "add yourself to the group that owns it: sudo usermod -aG kvm $USER, then log in again"
        }
        _ => "see the kernel's log: dmesg | grep -i kvm",
    }
}

fn create_vm(facts: &Facts) -> Check {
    let check = |found: String| fine(Group::Access, "create a VM", found, "KVM_CREATE_VM");
    match facts.access {
        Access::Open(_) => check("works".to_owned()),
        Access::NoVm(_, error) => {
            let advice = match error {
                libc::EBUSY => "another hypervisor holds the CPU's virtualisation; stop it",
                _ => "see the kernel's log: dmesg | grep -i kvm",
            };
            check(error_text(error)).lacking(State::Missing, "no guest can run", advice)
        }
        Access::Closed(_) | Access::NotKvm(_) => {
            Check { state: State::Unknown, ..check("not tried".to_owned()) }
        }
    }
}

/// Returns whether KVM has a capability; `None` if KVM could not be queried.
fn has(facts: &Facts, number: u32) -> Option<bool> {
    facts.capabilities.get(&number).map(|answer| *answer > 0)
}

/// Returns whether stock guests can run without a capability that is missing on this host.
fn is_dispensable(facts: &Facts, capability: &Capability) -> bool {
    match capability.need {
        Need::Required => false,
        Need::Wanted => true,
        Need::OneOf(mark) => CAPABILITIES
            .iter()
            .any(|other| other.need == Need::OneOf(mark) && has(facts, other.number) == Some(true)),
    }
}

fn judge_capability(facts: &Facts, capability: &Capability) -> Check {
    let number = Some(capability.number);
    let check = |found: &str| Check {
        number,
        ..fine(capability.group, capability.name, found, capability.purpose)
    };
    match has(facts, capability.number) {
        None => Check { state: State::Unknown, ..check("not asked") },
        Some(true) => check("yes"),
        Some(false) => {
            let state =
                if is_dispensable(facts, capability) { State::Warn } else { State::Missing };
            check("no").lacking(state, capability.cost, capability_advice(facts, capability))
        }
    }
}

fn capability_advice(facts: &Facts, capability: &Capability) -> &'static str {
    match capability.group {
        Group::HyperV if has(facts, HYPERV) == Some(false) => BUILD_WITH_HYPERV,
        Group::HyperV => "use a newer host kernel (5.14 has all of KVM's Hyper-V capabilities)",
        Group::Access | Group::Machine | Group::Host => {
            "use a newer host kernel, or a host with a newer CPU"
        }
    }
}

fn vcpus(facts: &Facts) -> Check {
    let check = |found: String| Check {
        number: Some(MAX_VCPUS),
        ..fine(Group::Machine, "MAX_VCPUS", found, "vCPUs in one machine")
    };
    match facts.capabilities.get(&MAX_VCPUS) {
        None => Check { state: State::Unknown, ..check("not asked".to_owned()) },
        Some(most) if *most >= i32::from(MAX_CPUS) => check(most.to_string()),
        Some(most) => {
            let cost = format!("machines have fewer than {MAX_CPUS} vCPUs");
            check(most.to_string()).lacking(State::Warn, &cost, "use a newer host kernel")
        }
    }
}

fn memory(facts: &Facts) -> Check {
    let check = |found: String| fine(Group::Host, "memory", found, "guest RAM");
    match facts.memory_available {
        None => Check { state: State::Unknown, ..check("/proc/meminfo does not tell".to_owned()) },
        Some(bytes) => {
            let check = check(format!("{} MiB available", bytes >> 20));
            if bytes >= WANTED_MEMORY {
                return check;
            }
            check.lacking(
                State::Warn,
                "guests must be small, or the host swaps",
                "end other programs, or add memory",
            )
        }
    }
}

fn hugepages(facts: &Facts) -> Check {
    let check =
        |found: String| fine(Group::Host, "hugepages", found, "guest RAM with fewer TLB misses");
    match facts.hugepages {
        None => check("none".to_owned()).lacking(
            State::Warn,
            "--hugepages cannot be used",
            "use a host kernel with CONFIG_HUGETLBFS=y",
        ),
        Some(pool) => {
            let check = check(format!(
                "{} of {} free, {} KiB each",
                pool.free,
                pool.total,
                pool.size >> 10
            ));
            if pool.free > 0 {
                return check;
            }
            // A host without reserved pages is not at fault: the advice is given, but without a
            // warning.
            let advice = "for --hugepages, reserve some: sysctl vm.nr_hugepages=512 (1 GiB)";
            Check {
                cost: Some("--hugepages cannot be used".into()),
                advice: Some(advice.into()),
                ..check
            }
        }
    }
}

fn large_pages(facts: &Facts) -> Check {
    let found = facts.large_pages.as_deref().unwrap_or("none");
    let check = fine(Group::Host, "large pages", found, "large pages for guest RAM as it is used");
    if matches!(found, "always" | "advise" | "within_size" | "force") {
        return check;
    }
    // A setting of the host, not a fault, like the pool above.
    let cost = "without --hugepages guest RAM has small pages: more TLB misses and page faults";
    let advice =
        format!("let memory files have them when asked: echo advise | sudo tee {LARGE_PAGES}");
    Check { cost: Some(cost.into()), advice: Some(advice), ..check }
}

fn memfd(facts: &Facts) -> Check {
    let check = |found: String| fine(Group::Host, "memfd", found, "guest RAM that can be shared");
    match facts.memfd {
        Ok(()) => check("works".to_owned()),
        Err(error) => check(error_text(error)).lacking(
            State::Missing,
            "there is no guest RAM",
            "allow memfd_create in the sandbox, or use a host kernel with CONFIG_MEMFD_CREATE=y",
        ),
    }
}

fn open_files(facts: &Facts) -> Check {
    let check = |found: String| {
        fine(Group::Host, "open files", found, "disks, channels and their eventfds")
    };
    match facts.open_files {
        None => Check { state: State::Unknown, ..check("the limit cannot be read".to_owned()) },
        Some((soft, hard)) => {
            let check = check(if hard == u64::MAX {
                format!("{soft}, at most any")
            } else {
                format!("{soft}, at most {hard}")
            });
            if soft >= WANTED_OPEN_FILES {
                return check;
            }
            let advice = format!("raise the limit: ulimit -n {WANTED_OPEN_FILES}");
            check.lacking(State::Warn, "machines with many disks do not start", advice)
        }
    }
}

fn io_uring(facts: &Facts) -> Check {
    let check = |found: String| fine(Group::Host, "io_uring", found, "asynchronous disk I/O");
    match facts.io_uring {
        Ok(()) => check("works".to_owned()),
        Err(error) => {
            let advice = match error {
                libc::EPERM | libc::EACCES => {
                    "allow it: sysctl kernel.io_uring_disabled=0, and in the container's seccomp \
                    profile"
                }
                _ => "use a host kernel with CONFIG_IO_URING=y",
            };
            check(error_text(error)).lacking(
                State::Warn,
                "disks use threads and are slower",
                advice,
            )
        }
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
