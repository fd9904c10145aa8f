//! Errors of building a machine, and the ways in which a machine ends.

use std::io;
use std::path::PathBuf;

use synthvm_firmware::BootFailure;

use crate::acpi::AcpiError;
use crate::boot::BootError;
use crate::crash::CrashParameters;
use crate::firmware::FirmwareError;
use crate::hyperv::HypervError;
use crate::memory::MemoryError;
use crate::msvm::MsvmError;
use crate::unix_socket::SocketError;

/// An error in building a machine. Each variant tells which field of
/// [`MachineConfig`](crate::MachineConfig) or which part of the host is at fault.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The device node `kvm` cannot be used.
    #[error("{}: {source}", path.display())]
    OpenKvm {
        /// The node.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The node `kvm` is not KVM, or is a very old version.
    #[error("{}: not KVM, or a version of it that SynthVM does not know", path.display())]
    NotKvm {
        /// The node.
        path: PathBuf,
    },
    /// KVM lacks a capability.
    #[error("this host's KVM lacks {0}")]
    Missing(&'static str),
    /// KVM lacks a capability that `irqchip` needs in the mode `split`.
    #[error("this host's KVM lacks {0}, which a split irqchip needs")]
    MissingForSplit(&'static str),
    /// `cpus` is larger than KVM supports.
    #[error("this host's KVM takes at most {limit} vCPUs, not {asked}")]
    TooManyCpus {
        /// vCPUs requested.
        asked: u32,
        /// KVM's limit.
        limit: usize,
    },
    /// The CPU has too few address bits for `memory_bytes`.
    #[error(
        "the RAM and its MMIO windows need {needed} address bits, \
         this host's CPU offers guests {offered}"
    )]
    AddressBits {
        /// Bits needed.
        needed: u32,
        /// Bits available.
        offered: u32,
    },
    /// An ioctl failed.
    #[error("KVM: {what}: {source}")]
    Kvm {
        /// The failed operation.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The Hyper-V options are invalid.
    #[error(transparent)]
    Hyperv(#[from] HypervError),
    /// Guest RAM cannot be allocated.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The kernel, the initrd or the command line is invalid.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// There is neither a kernel nor firmware.
    #[error("there is neither a kernel nor firmware to start")]
    NothingToStart,
    /// The firmware, or a file for it, is invalid.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// Hyper-V's generation 2 firmware, or a file for it, is invalid.
    #[error(transparent)]
    Msvm(#[from] MsvmError),
    /// The firmware tables cannot be written.
    #[error(transparent)]
    Acpi(#[from] AcpiError),
    /// The file of a serial port cannot be opened.
    #[error("{}: {source}", path.display())]
    SerialFile {
        /// The index in `serial`.
        port: usize,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The socket of a serial port cannot be bound.
    #[error("{source}")]
    SerialSocket {
        /// The index in `serial`.
        port: usize,
        /// The cause.
        source: SocketError,
    },
    /// Both serial ports use the terminal.
    #[error("the terminal belongs to both serial ports")]
    TwoTerminals,
    /// The host refused another resource, such as a descriptor or a thread.
    #[error("{what}: {source}")]
    System {
        /// The failed operation.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
}

impl MachineError {
    /// Returns a converter of KVM errors, for `map_err`.
    pub(super) fn kvm<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> MachineError {
        move |source| MachineError::Kvm { what, source: source.into() }
    }

    /// Returns a converter of other host errors, for `map_err`.
    pub(super) fn system(what: &'static str) -> impl FnOnce(io::Error) -> MachineError {
        move |source| MachineError::System { what, source }
    }
}

/// The way in which a machine ended.
#[derive(Debug)]
pub enum Exit {
    /// The guest switched the machine off.
    PowerOff,
    /// The guest requested a reset, and the policy is to exit.
    Reset,
    /// The guest reported a crash, and the policy is to exit.
    Panic(CrashParameters),
    /// Firmware booted no system, and the policy is to exit.
    NoBootDevice(BootFailure),
    /// A handle requested the end ([`super::MachineHandle::stop`]).
    Stopped,
    /// The machine cannot continue.
    Failed(MachineFailure),
}

/// The cause of a running machine's failure.
#[derive(Debug, thiserror::Error)]
pub enum MachineFailure {
    /// KVM cannot execute an instruction, or has an internal error.
    #[error("vCPU {vcpu}: KVM internal error, suberror {suberror} ({}), RIP {rip:#x}, opcode \
        bytes {}", suberror_name(*suberror), hex(opcode))]
    Internal {
        /// The vCPU.
        vcpu: u32,
        /// KVM's suberror.
        suberror: u32,
        /// Instruction pointer.
        rip: u64,
        /// Bytes at RIP that could be read.
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
    /// KVM made an exit that SynthVM did not enable.
    #[error("vCPU {vcpu}: KVM exit {reason}, which SynthVM does not handle")]
    UnexpectedExit {
        /// The vCPU.
        vcpu: u32,
        /// KVM_EXIT_*.
        reason: u32,
    },
    /// The ioctl KVM_RUN failed.
    #[error("vCPU {vcpu}: KVM_RUN: {source}")]
    Run {
        /// The vCPU.
        vcpu: u32,
        /// The cause.
        source: io::Error,
    },
    /// A reset failed.
    #[error("resetting the machine: {0}")]
    Reset(#[from] Box<MachineError>),
    /// The thread of a vCPU panicked: a defect of SynthVM.
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
