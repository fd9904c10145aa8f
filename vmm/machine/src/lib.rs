//! The machine: KVM, guest memory, vCPUs, interrupts, SynIC, ACPI, legacy devices and direct boot.
//!
//! [`Machine::build`] makes a machine from a [`MachineConfig`], and [`Machine::run`] runs it until
//! it ends. The machine has no knowledge of VMBus devices: it provides an interrupt controller for
//! a bus ([`Machine::synic`]), and passes a guest's hypercalls to that bus ([`Machine::set_bus`]).
//!
//! | module | knowledge |
//! |---|---|
//! | `options` | the options of a machine |
//! | `machine` | building, running, resetting and ending it; its threads |
//! | `hyperv` | enlightenments, hypercalls, SynIC |
//! | `devices` | serial ports, RTC, power management, IOAPIC |
//! | `irq` | interrupt lines and their routing |
//! | `memory`, `acpi`, `boot` | guest RAM, tables, kernel |
//! | `generation` | the generation id: its place, its change |
//! | `firmware` | the platform of UEFI firmware: its devices, tables and memory slots |
//! | `smbios` | the machine's identity and its SMBIOS tables |
//! | `msvm` | Hyper-V's generation 2 firmware: its loading, its ports and its watchdog |
//! | [`unix_socket`] | sockets that belong to one user |

mod acpi;
mod boot;
mod crash;
mod devices;
mod firmware;
mod generation;
mod guest_log;
mod hyperv;
mod irq;
mod machine;
mod memory;
mod msvm;
mod options;
mod smbios;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod unix_socket;

pub use boot::{BootError, BootFile, BootSource, FileProblem};
pub use crash::CrashParameters;
pub use devices::serial::{Escape, RawTerminal, SerialHub};
pub use firmware::{CloudHvSource, FirmwareError, FirmwareSource};
pub use hyperv::{FreePages, HypervError};
pub use machine::{
    ClockReading, EventLoop, Exit, Machine, MachineError, MachineFailure, MachineHandle,
    MachineState, ReferenceClock, Subscriber, VcpuExits, new_vm,
};
pub use memory::{AddressRange, GuestMemory, HotAddSlots, MemoryError, WindowError, WindowMemory};
pub use msvm::{MsvmError, MsvmSource};
pub use options::{
    FirmwareConfig, HypervConfig, HypervOption, HypervPreset, IrqchipMode, MAX_CPUS, MachineConfig,
    MsvmConfig, OnNoBootDevice, OnPanic, OnReset, RtcBase, SerialConfig, SmbiosConfig, host_path,
};
pub use synthvm_firmware::BootFailure;
