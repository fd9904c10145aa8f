//! The code that starts in a machine: a kernel, or firmware.

use super::MachineError;
use crate::acpi::{self, AcpiError};
use crate::boot::{BootSource, Entry};
use crate::firmware::{CloudHvSource, FirmwareError, FirmwareSource};
use crate::memory::{GuestMemory, MemoryLayout};
use crate::msvm::{MsvmError, MsvmSource};
use crate::options::{HypervOption, MachineConfig};
use crate::smbios::MachineIdentity;

/// The files of a machine, checked.
pub(super) enum Start {
    /// A kernel, started directly.
    Kernel(BootSource),
    /// Firmware, which may start a kernel.
    Firmware(Box<FirmwareSource>),
    /// `CLOUDHV.fd`, started like a kernel.
    CloudHv(Box<CloudHvSource>),
    /// Hyper-V's generation 2 firmware.
    Msvm(MsvmSource),
}

impl Start {
    /// Opens the files and checks everything that does not need guest memory.
    pub(super) fn open(config: &MachineConfig) -> Result<Start, MachineError> {
        let (kernel, initrd) = (config.kernel.as_deref(), config.initrd.as_deref());
        if let Some(msvm) = &config.msvm {
            if !config.hyperv.offers(HypervOption::Stimer) {
                return Err(MsvmError::NoTimers.into());
            }
            return Ok(Start::Msvm(MsvmSource::open(msvm)?));
        }
        if let Some(firmware) = &config.firmware
            && let Some(source) = CloudHvSource::open(firmware, kernel)?
        {
            return Ok(Start::CloudHv(Box::new(source)));
        }
        match (&config.firmware, kernel) {
            (Some(firmware), _) => {
                let source = FirmwareSource::open(firmware, kernel, initrd, &config.cmdline)?;
                Ok(Start::Firmware(Box::new(source)))
            }
            (None, Some(kernel)) => {
                Ok(Start::Kernel(BootSource::open(kernel, initrd, &config.cmdline)?))
            }
            (None, None) => Err(MachineError::NothingToStart),
        }
    }

    /// Writes a kernel and the tables into guest memory. Firmware reads its own tables.
    pub(super) fn load(
        &self,
        memory: &GuestMemory,
        layout: &MemoryLayout,
        tables: &acpi::Platform,
        identity: &MachineIdentity,
    ) -> Result<Entry, MachineError> {
        match self {
            Start::Kernel(source) => load_kernel(source, memory, layout, tables, identity),
            Start::CloudHv(source) => {
                match load_kernel(&source.image, memory, layout, tables, identity)? {
                    entry @ Entry::Pvh { .. } => Ok(entry),
                    _ => Err(FirmwareError::NoPvhEntry { path: source.path.clone() }.into()),
                }
            }
            Start::Firmware(_) => Ok(Entry::ResetVector),
            Start::Msvm(source) => Ok(Entry::Msvm(source.load(memory, layout, tables, identity)?)),
        }
    }
}

/// Writes a kernel and the tables into guest memory.
pub(super) fn load_kernel(
    source: &BootSource,
    memory: &GuestMemory,
    layout: &MemoryLayout,
    tables: &acpi::Platform,
    identity: &MachineIdentity,
) -> Result<Entry, MachineError> {
    let rsdp = acpi::write(memory, tables)?;
    let cpus = tables.apic_ids.len() as u16;
    identity.write(memory, layout, cpus).map_err(AcpiError::from)?;
    Ok(source.load(memory, layout, rsdp)?)
}
