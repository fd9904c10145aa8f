//! The configuration of a machine.
//!
//! One definition ([`VmConfig`]) has three sources: command line flags, a TOML file with the same
//! keys, and defaults.

mod check;
mod de;
mod disk;
mod display;
mod dvd;
mod error;
mod file;
mod firmware;
mod identity;
mod inputs;
mod installed;
mod keyvalue;
mod limits;
mod load;
mod memory;
#[cfg(test)]
mod memory_tests;
#[cfg(test)]
mod msvm_tests;
mod network;
mod node;
mod print;
mod profile;
mod services;
mod size;
mod test_device;
#[cfg(test)]
mod tests;
mod tpm;
mod vnc;
mod vsock;

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};
use synthvm_machine::MachineConfig;

pub(crate) use check::{check_id, check_names};
pub use disk::{BufferMode, DiskConfig, DiskSource, MAX_CONTROLLERS, MAX_LUNS};
pub use display::{DisplayConfig, DisplayMode, VIDEO_MEMORY_BYTES};
pub use dvd::DvdConfig;
pub use error::ConfigError;
pub(crate) use error::unknown;
pub use file::MAX_FILE_BYTES;
pub use firmware::{FirmwareConfig, FirmwareVarsConfig};
pub use identity::{GenerationId, MachineUuid};
pub use inputs::InputError;
pub use limits::LimitsConfig;
pub use load::{Flag, KEYS};
pub use memory::{
    MAX_BUFFER_PERCENT, MAX_MEMORY, MAX_START_DELAY_SECONDS, MIN_MEMORY, MemoryConfig,
};
pub(crate) use network::instance;
pub use network::{
    Descriptors, MAX_CARDS, MAX_MTU, MAX_QUEUES, MIN_MTU, NetworkBackend, NetworkConfig,
};
pub use services::ServicesConfig;
pub use size::ByteSize;
pub use synthvm_machine::{
    HypervConfig, HypervOption, HypervPreset, IrqchipMode, MAX_CPUS, OnNoBootDevice, OnPanic,
    OnReset, RtcBase, SerialConfig, SmbiosConfig,
};
pub use test_device::TestDevice;
pub use tpm::{TpmBackend, TpmConfig};
pub use vnc::VncAddress;
pub use vsock::{VsockConfig, VsockService};

/// The default device node of KVM.
pub const DEFAULT_KVM: &str = "/dev/kvm";

/// The default of [`VmConfig::stop_timeout`] in seconds.
pub const DEFAULT_STOP_TIMEOUT_SECONDS: u32 = 30;

/// The maximum of [`VmConfig::stop_timeout`]: a day.
pub const MAX_STOP_TIMEOUT_SECONDS: u32 = 86_400;

/// The maximum and default poll window of a disk controller's thread, in microseconds: the longest
/// time that waking the thread can take.
pub const MAX_DISK_BUSY_POLL_MICROSECONDS: u32 = 50;

/// The configuration of a machine. Every value is in its documented range after loading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VmConfig {
    /// Kernel image: bzImage or ELF vmlinux, started directly; with firmware, an EFI application
    /// that the firmware starts. Always set without firmware.
    #[serde(default, deserialize_with = "de::optional_host_path")]
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk, passed to the kernel unchanged.
    #[serde(default, deserialize_with = "de::optional_host_path")]
    pub initrd: Option<PathBuf>,
    /// Kernel command line, passed unchanged.
    #[serde(default)]
    pub cmdline: String,
    /// UEFI firmware, which starts the machine.
    #[serde(default)]
    pub firmware: Option<FirmwareConfig>,
    /// The firmware's variables. Default: they are lost with the machine.
    #[serde(default)]
    pub firmware_vars: Option<FirmwareVarsConfig>,
    /// Guest RAM.
    #[serde(default)]
    pub memory: MemoryConfig,
    /// vCPUs, 1 to [`MAX_CPUS`].
    #[serde(default = "default_cpus", deserialize_with = "cpus")]
    pub cpus: u8,
    /// Disks on VMBus SCSI controllers. After loading, every `lun` is set and no address occurs
    /// twice.
    #[serde(default, rename = "disk", skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<DiskConfig>,
    /// DVD drives on the same controllers, with the same guarantees.
    #[serde(default, rename = "dvd", skip_serializing_if = "Vec::is_empty")]
    pub dvds: Vec<DvdConfig>,
    /// Network cards. After loading, every `id` and `mac` is set and unique.
    #[serde(default, rename = "net", skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<NetworkConfig>,
    /// The screen, the keyboard and the mouse.
    #[serde(default)]
    pub display: DisplayConfig,
    /// The integration services that the guest is offered.
    #[serde(default)]
    pub services: ServicesConfig,
    /// The longest poll window of a disk controller's thread before it sleeps, in microseconds; 0
    /// disables polling.
    #[serde(default = "default_disk_busy_poll", deserialize_with = "disk_busy_poll")]
    pub disk_busy_poll: u32,
    /// Number of channels of each disk controller, with a host thread each. Absent: one for every
    /// four vCPUs.
    #[serde(default, deserialize_with = "disk_channels")]
    pub disk_channels: Option<u8>,
    /// Interrupt moderation: disk controllers may delay the interrupt for completions while many
    /// requests are in flight, if more of them finish because of the delay.
    #[serde(default = "on")]
    pub disk_moderation: bool,
    /// The first 16550 (ttyS0, COM1).
    #[serde(default = "SerialConfig::stdio")]
    pub serial: SerialConfig,
    /// The second 16550 (ttyS1, COM2).
    #[serde(default)]
    pub serial2: SerialConfig,
    /// Path of the socket for `synthvm inspect` and `synthvm control`.
    #[serde(default, deserialize_with = "de::optional_host_path")]
    pub control: Option<PathBuf>,
    /// The Hyper-V enlightenments that the guest is offered.
    #[serde(default)]
    pub hyperv: HypervConfig,
    /// The location of the interrupt controllers.
    #[serde(default)]
    pub irqchip: IrqchipMode,
    /// The time zone of the battery-backed clock.
    #[serde(default)]
    pub rtc: RtcBase,
    /// Whether the guest may hibernate (ACPI S4). Not with dynamic memory.
    #[serde(default)]
    pub hibernation: bool,
    /// A TPM 2.0. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpm: Option<TpmConfig>,
    /// The machine's UUID. Default: one that follows from its name.
    #[serde(default)]
    pub uuid: Option<MachineUuid>,
    /// The machine's generation id. Default: one that follows from its name.
    #[serde(default)]
    pub generation_id: Option<GenerationId>,
    /// The texts of the machine's SMBIOS tables.
    #[serde(default)]
    pub smbios: SmbiosConfig,
    /// AF_VSOCK of the guest, to and from Unix sockets. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vsock: Option<VsockConfig>,
    /// The action on a guest's reset.
    #[serde(default)]
    pub on_reset: OnReset,
    /// The action on a guest's panic.
    #[serde(default)]
    pub on_panic: OnPanic,
    /// The action when firmware finds no system to boot.
    #[serde(default)]
    pub on_no_boot_device: OnNoBootDevice,
    /// Seconds that the guest has to power down after SIGTERM, SIGINT or SIGHUP; 0 stops the
    /// machine immediately.
    #[serde(default = "default_stop_timeout", deserialize_with = "stop_timeout")]
    pub stop_timeout: u32,
    /// A device for tests, in addition to the others.
    pub test_device: Option<TestDevice>,
    /// The KVM device node.
    #[serde(default = "default_kvm", deserialize_with = "de::host_path")]
    pub kvm: PathBuf,
}

impl VmConfig {
    /// Returns the options of the machine itself.
    #[must_use]
    pub fn machine(&self) -> MachineConfig {
        MachineConfig {
            kernel: self.kernel.clone(),
            initrd: self.initrd.clone(),
            cmdline: self.cmdline.clone(),
            firmware: self.machine_firmware(),
            msvm: self.machine_msvm(),
            uuid: self.machine_uuid().to_bytes(),
            generation_id: self.machine_generation(),
            smbios: self.smbios.clone(),
            memory_bytes: self.memory.size.bytes(),
            max_memory_bytes: if self.memory.is_dynamic() { self.memory.max().bytes() } else { 0 },
            hugepages: self.memory.hugepages,
            cpus: self.cpus,
            serial: [self.serial.clone(), self.serial2.clone()],
            hyperv: self.machine_hyperv(),
            irqchip: self.irqchip,
            rtc: self.rtc,
            hibernation: self.hibernation,
            on_reset: self.on_reset,
            on_panic: self.on_panic,
            on_no_boot_device: self.on_no_boot_device,
            kvm: self.kvm.clone(),
        }
    }
}

impl VmConfig {
    /// Returns the enlightenments with those that dynamic memory needs.
    fn machine_hyperv(&self) -> HypervConfig {
        let mut hyperv = self.hyperv.clone();
        if self.memory.is_dynamic() && self.memory.free_page_reporting {
            hyperv.overrides.entry(HypervOption::ExtendedHypercalls).or_insert(true);
        }
        hyperv
    }
}

fn default_cpus() -> u8 {
    1
}

fn on() -> bool {
    true
}

fn default_disk_busy_poll() -> u32 {
    MAX_DISK_BUSY_POLL_MICROSECONDS
}

fn default_stop_timeout() -> u32 {
    DEFAULT_STOP_TIMEOUT_SECONDS
}

fn default_kvm() -> PathBuf {
    PathBuf::from(DEFAULT_KVM)
}

fn cpus<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    bounded(deserializer, "a machine's number of vCPUs", 1..=MAX_CPUS)
}

fn disk_busy_poll<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    bounded(
        deserializer,
        "the longest poll window, in microseconds,",
        0..=MAX_DISK_BUSY_POLL_MICROSECONDS,
    )
}

fn disk_channels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    optional_bounded(deserializer, "a disk controller's number of channels", 1..=MAX_CPUS)
}

fn stop_timeout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    bounded(deserializer, "the time to power down, in seconds,", 0..=MAX_STOP_TIMEOUT_SECONDS)
}

/// Reads a number that must be in `range`. `what` is the subject of the error message.
fn bounded<'de, D, N>(deserializer: D, what: &str, range: RangeInclusive<N>) -> Result<N, D::Error>
where
    D: Deserializer<'de>,
    N: TryFrom<u64> + PartialOrd + fmt::Display,
{
    within(u64::deserialize(deserializer)?, what, &range)
}

/// Reads like [`bounded`] a number that may be absent.
fn optional_bounded<'de, D, N>(
    deserializer: D,
    what: &str,
    range: RangeInclusive<N>,
) -> Result<Option<N>, D::Error>
where
    D: Deserializer<'de>,
    N: TryFrom<u64> + PartialOrd + fmt::Display,
{
    let number = Option::<u64>::deserialize(deserializer)?;
    number.map(|number| within(number, what, &range)).transpose()
}

fn within<N, E>(number: u64, what: &str, range: &RangeInclusive<N>) -> Result<N, E>
where
    N: TryFrom<u64> + PartialOrd + fmt::Display,
    E: serde::de::Error,
{
    let (least, most) = (range.start(), range.end());
    let refuse = || E::custom(format!("{what} is {least} to {most}, not {number}"));
    N::try_from(number).ok().filter(|fitting| range.contains(fitting)).ok_or_else(refuse)
}
