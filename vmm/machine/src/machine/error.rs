//! Why there is no machine, and how one ends.

use std::io;
use std::path::PathBuf;

use crate::acpi::AcpiError;
use crate::boot::BootError;
use crate::hyperv::HypervError;
use crate::memory::MemoryError;
use crate::unix_socket::SocketError;

/// Why a machine cannot be built. Messages name the option at fault.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The device node cannot be used.
    #[error("--kvm {}: {source}{}", path.display(), kvm_hint(source))]
    OpenKvm {
        /// The node.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is something else, or very old.
    #[error("--kvm {}: not KVM, or a version of it that SynthVM does not know", path.display())]
    NotKvm {
        /// The node.
        path: PathBuf,
    },
    /// KVM lacks a capability.
    #[error("--kvm: this host's KVM lacks {0}; `synthvm doctor` shows what it offers")]
    Missing(&'static str),
    /// More vCPUs than KVM takes.
    #[error("--cpus {asked}: this host's KVM takes at most {limit}")]
    TooManyCpus {
        /// vCPUs asked for.
        asked: u32,
        /// KVM's limit.
        limit: usize,
    },
    /// The CPU cannot address that much.
    #[error(
        "--memory: needs {needed} address bits with its MMIO windows, this host's CPU offers guests {offered}"
    )]
    AddressBits {
        /// Bits needed.
        needed: u32,
        /// Bits there are.
        offered: u32,
    },
    /// An ioctl failed.
    #[error("KVM: {what}: {source}")]
    Kvm {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Hyper-V options.
    #[error(transparent)]
    Hyperv(#[from] HypervError),
    /// Guest RAM.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Kernel, initrd, command line.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// Firmware tables.
    #[error(transparent)]
    Acpi(#[from] AcpiError),
    /// A serial port's file.
    #[error("{option} file={}: {source}", path.display())]
    SerialFile {
        /// `--serial` or `--serial2`.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A serial port's socket.
    #[error("{option} socket={source}")]
    SerialSocket {
        /// `--serial` or `--serial2`.
        option: &'static str,
        /// Why.
        source: SocketError,
    },
    /// Two ports on one terminal.
    #[error(
        "--serial2 stdio: the terminal belongs to --serial already; choose file, socket or null for one of them"
    )]
    TwoTerminals,
    /// Descriptors, threads.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

fn kvm_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            " (is KVM enabled in the firmware, and its kernel module loaded?)"
        }
        io::ErrorKind::PermissionDenied => {
            " (is this user in the group that owns it, usually `kvm`?)"
        }
        _ => "",
    }
}

impl MachineError {
    /// For `map_err` on KVM ioctls.
    pub(super) fn kvm<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> MachineError {
        move |source| MachineError::Kvm { what, source: source.into() }
    }

    /// For `map_err` on everything else that the host can refuse.
    pub(super) fn system(what: &'static str) -> impl FnOnce(io::Error) -> MachineError {
        move |source| MachineError::System { what, source }
    }
}

/// How a machine ended.
#[derive(Debug)]
pub enum Exit {
    /// The guest switched itself off.
    PowerOff,
    /// The guest asked for a reset, and the policy is to end then.
    Reset,
    /// The guest reported a crash, and the policy is to end then.
    Panic(CrashParameters),
    /// Somebody outside asked ([`super::MachineHandle::stop`]).
    Stopped,
    /// The machine cannot go on.
    Failed(MachineFailure),
}

/// The guest's crash MSRs P0 to P4. Linux: P0 is its error code, P1 its OS id, then registers;
/// Windows: bug check code and parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CrashParameters(pub [u64; 5]);

impl std::fmt::Display for CrashParameters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [p0, p1, p2, p3, p4] = self.0;
        write!(f, "P0={p0:#x} P1={p1:#x} P2={p2:#x} P3={p3:#x} P4={p4:#x}")
    }
}

/// Why a running machine had to be stopped.
#[derive(Debug, thiserror::Error)]
pub enum MachineFailure {
    /// KVM gave up on an instruction, or on itself.
    #[error("vCPU {vcpu}: KVM internal error, suberror {suberror} ({}), RIP {rip:#x}, opcode bytes {}", suberror_name(*suberror), hex(opcode))]
    Internal {
        /// The vCPU.
        vcpu: u32,
        /// KVM's suberror.
        suberror: u32,
        /// Instruction pointer.
        rip: u64,
        /// Bytes at RIP, as far as they can be read.
        opcode: Vec<u8>,
    },
    /// The CPU refused the vCPU's state.
    #[error("vCPU {vcpu}: hardware refused to enter the guest, reason {reason:#x}")]
    FailEntry {
        /// The vCPU.
        vcpu: u32,
        /// Hardware's reason.
        reason: u64,
    },
    /// An exit that SynthVM never asked for.
    #[error("vCPU {vcpu}: KVM exit {reason}, which SynthVM does not handle")]
    UnexpectedExit {
        /// The vCPU.
        vcpu: u32,
        /// KVM_EXIT_*.
        reason: u32,
    },
    /// KVM_RUN itself failed.
    #[error("vCPU {vcpu}: KVM_RUN: {source}")]
    Run {
        /// The vCPU.
        vcpu: u32,
        /// Why.
        source: io::Error,
    },
    /// A reset did not succeed.
    #[error("resetting the machine: {0}")]
    Reset(#[from] Box<MachineError>),
    /// A vCPU's thread ended by a panic: a defect of SynthVM.
    #[error("vCPU {0}: its thread died")]
    ThreadDied(u32),
}

fn suberror_name(suberror: u32) -> &'static str {
    match suberror {
        1 => "an instruction that KVM cannot emulate",
        2 => "simultaneous exceptions",
        3 => "exception while delivering an event",
        4 => "unexpected exit reason",
        _ => "unknown",
    }
}

fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "unreadable".to_owned();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}
