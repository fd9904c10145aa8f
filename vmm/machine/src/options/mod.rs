//! The options of a machine. Each has one type, which a program's configuration uses as it is: they
//! are read and written by serde under the names that users know.

mod hyperv;
mod policy;
mod serial;

use std::path::PathBuf;

pub use hyperv::{HypervConfig, HypervOption, HypervPreset};
pub use policy::{IrqchipMode, OnPanic, OnReset};
pub use serial::{SerialConfig, host_path};

/// The most vCPUs of a machine.
///
/// One xAPIC cluster set and one 64-bit processor mask; more needs x2APIC ids above 254 to be
/// thought through first.
pub const MAX_CPUS: u8 = 64;

/// A machine to be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineConfig {
    /// Kernel image: bzImage or ELF vmlinux.
    pub kernel: PathBuf,
    /// Initial RAM disk, handed to the kernel unchanged.
    pub initrd: Option<PathBuf>,
    /// Kernel command line, handed over unchanged.
    pub cmdline: String,
    /// Bytes of guest RAM: whole MiB, or whole 2 MiB with `hugepages`.
    pub memory_bytes: u64,
    /// Back the RAM with the host's 2 MiB hugepages instead of ordinary pages.
    pub hugepages: bool,
    /// vCPUs, 1 to [`MAX_CPUS`].
    pub cpus: u8,
    /// The first and the second 16550 (ttyS0 and ttyS1).
    pub serial: [SerialConfig; 2],
    /// The Hyper-V enlightenments that the guest is offered.
    pub hyperv: HypervConfig,
    /// The place of the interrupt controllers.
    pub irqchip: IrqchipMode,
    /// The action at a guest's reset.
    pub on_reset: OnReset,
    /// The action at a guest's panic.
    pub on_panic: OnPanic,
    /// The KVM device node.
    pub kvm: PathBuf,
}
