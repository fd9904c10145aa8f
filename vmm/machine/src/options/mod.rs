//! The options of a machine. Each has one type, which a program's configuration uses directly:
//! serde reads and writes it under the names that users know.

mod hyperv;
mod policy;
mod serial;
mod smbios;

use std::path::PathBuf;

pub use hyperv::{HypervConfig, HypervOption, HypervPreset};
pub use policy::{IrqchipMode, OnNoBootDevice, OnPanic, OnReset, RtcBase};
pub use serial::{SerialConfig, host_path};
pub use smbios::SmbiosConfig;

/// The most vCPUs of a machine.
///
/// The limit is one xAPIC cluster set and one 64-bit processor mask. More vCPUs need x2APIC ids
/// above 254.
pub const MAX_CPUS: u8 = 64;

/// The firmware of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FirmwareConfig {
    /// The image: code, or variables and code.
    pub image: PathBuf,
    /// The file of the variables, created if it does not exist. Without one, the variables are lost
    /// with the machine.
    pub variables: Option<PathBuf>,
    /// The variables of a new file. Without one, those of the image, or of the file beside it.
    pub template: Option<PathBuf>,
    /// An option ROM, from which firmware loads a driver.
    pub option_rom: Option<PathBuf>,
}

/// Hyper-V's generation 2 firmware, as the firmware of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MsvmConfig {
    /// The image, `MSVM.fd`.
    pub image: PathBuf,
    /// The file of the variables, created if it does not exist. Without one, the variables are lost
    /// with the machine.
    pub variables: Option<PathBuf>,
}

/// The configuration of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineConfig {
    /// Kernel image: bzImage or ELF vmlinux; an EFI application if there is firmware. Without a
    /// kernel, firmware boots from the disks.
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk, passed to the kernel unchanged.
    pub initrd: Option<PathBuf>,
    /// Kernel command line, passed unchanged.
    pub cmdline: String,
    /// Firmware that starts the machine. Without it, the kernel is started directly.
    pub firmware: Option<FirmwareConfig>,
    /// Hyper-V's generation 2 firmware, which starts the machine instead.
    pub msvm: Option<MsvmConfig>,
    /// The machine's UUID, as a GUID in wire order. SMBIOS shows it.
    pub uuid: [u8; 16],
    /// The generation id of the machine's state, as a GUID in wire order. A guest that is started
    /// with another id than before, or notified of a change, knows that it is a copy. `None`: a
    /// random one.
    pub generation_id: Option<[u8; 16]>,
    /// The other texts by which SMBIOS describes the machine.
    pub smbios: SmbiosConfig,
    /// Bytes of guest RAM: whole MiB, or whole 2 MiB with `hugepages`.
    pub memory_bytes: u64,
    /// Bytes of guest RAM with all memory that can be added later, in the same units. Less than
    /// `memory_bytes`: none can be added.
    pub max_memory_bytes: u64,
    /// Whether the host's 2 MiB hugepages back the RAM, instead of ordinary pages.
    pub hugepages: bool,
    /// Number of vCPUs, 1 to [`MAX_CPUS`].
    pub cpus: u8,
    /// The first and the second 16550 (ttyS0 and ttyS1).
    pub serial: [SerialConfig; 2],
    /// The Hyper-V enlightenments that the guest is offered.
    pub hyperv: HypervConfig,
    /// The location of the interrupt controllers.
    pub irqchip: IrqchipMode,
    /// The time zone of the battery-backed clock.
    pub rtc: RtcBase,
    /// Whether the guest may hibernate (ACPI S4): save its memory to its disk and power off.
    pub hibernation: bool,
    /// The action on a guest's reset.
    pub on_reset: OnReset,
    /// The action on a guest's panic.
    pub on_panic: OnPanic,
    /// The action on firmware's report that there is no system to boot.
    pub on_no_boot_device: OnNoBootDevice,
    /// The KVM device node.
    pub kvm: PathBuf,
}
