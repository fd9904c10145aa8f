//! The firmware's image and its configuration.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use synthvm_msvm::{
    BlobError, BlobWriter, ConfigFlags, EntryState, FirmwareImage, MemoryRange, MmioWindow,
    ProcessorCounts,
};

use super::MsvmError;
use crate::acpi;
use crate::memory::{AddressRange, GuestMemory, HIGH_RAM_BASE, LOW_MMIO, MemoryLayout};
use crate::options::MsvmConfig;
use crate::smbios::MachineIdentity;

/// Least RAM in bytes. The firmware's heap alone has 64 MiB (spec firmware-windows section A2).
const MIN_MEMORY: u64 = 128 << 20;

/// An image that was opened and checked once; it is loaded at each start and reset.
#[derive(Debug)]
pub struct MsvmSource {
    image: FirmwareImage,
}

impl MsvmSource {
    /// Opens and checks the image. The variables file is not opened here, because that may create
    /// it.
    ///
    /// # Errors
    /// [`MsvmError`]: the file at fault, and the cause.
    pub fn open(config: &MsvmConfig) -> Result<MsvmSource, MsvmError> {
        let path = &config.image;
        let bytes = read(path).map_err(|source| MsvmError::Read { path: path.clone(), source })?;
        let image = FirmwareImage::new(bytes)
            .map_err(|source| MsvmError::Image { path: path.clone(), source })?;
        Ok(MsvmSource { image })
    }

    /// Writes the image, its tables and its configuration into guest memory. Returns the state of
    /// the boot processor.
    ///
    /// # Errors
    /// [`MsvmError`].
    pub(crate) fn load(
        &self,
        memory: &GuestMemory,
        layout: &MemoryLayout,
        tables: &acpi::Platform,
        identity: &MachineIdentity,
    ) -> Result<EntryState, MsvmError> {
        let too_small = MsvmError::Memory { mib: layout.ram_size() >> 20 };
        if layout.low_ram.len() < MIN_MEMORY {
            return Err(too_small);
        }
        let mut entropy = [0; 64];
        getrandom::fill(&mut entropy).map_err(|error| MsvmError::System {
            what: "random numbers",
            source: io::Error::other(error.to_string()),
        })?;
        let blob = self.blob(layout, tables, identity, &entropy)?;
        let placement = self.image.placement();
        placement.load(memory, &self.image, &blob).map_err(|_| too_small)
    }

    fn blob(
        &self,
        layout: &MemoryLayout,
        tables: &acpi::Platform,
        identity: &MachineIdentity,
        entropy: &[u8; 64],
    ) -> Result<Vec<u8>, BlobError> {
        let ram = [layout.low_ram, layout.high_ram];
        let ranges: Vec<MemoryRange> = ram
            .into_iter()
            .filter(|range| !range.is_empty())
            .map(|range| MemoryRange { base: range.start, len: range.len() })
            .collect();
        let window = |range: AddressRange| MmioWindow { base: range.start, len: range.len() };
        let cpus = tables.apic_ids.len() as u32;
        // No display: the console is COM1, and a failed boot ends instead of showing a menu.
        let mut flags = ConfigFlags::SERIAL
            | ConfigFlags::CONSOLE_COM1
            | ConfigFlags::NO_FRONT_PAGE
            | ConfigFlags::MTRRS_SET;
        flags.set(ConfigFlags::HIBERNATE, tables.hibernation);
        let blob = identity.add_to(BlobWriter::new());
        let blob = match acpi::srat(tables) {
            Some(srat) => blob.acpi_table(srat.as_slice()),
            None => blob,
        };
        blob.image_bytes(self.image.bytes().len() as u64)
            .memory_map(&ranges)
            .entropy(entropy)
            .guid(identity.uuid)
            .flags(flags)
            .processors(ProcessorCounts {
                max: cpus,
                present: cpus,
                per_socket: cpus,
                threads_per_core: 1,
            })
            .mmio(window(LOW_MMIO), window(layout.high_mmio))
            .madt(acpi::madt(tables).as_slice())
            .finish()
    }
}

/// Returns the MTRRs of every processor of a machine with this layout, as MSR numbers and values.
pub(crate) fn mtrrs(layout: &MemoryLayout, address_bits: u32) -> Vec<(u32, u64)> {
    let high_end = layout.high_ram.end.max(HIGH_RAM_BASE);
    let registers = synthvm_msvm::mtrrs(layout.low_ram.end, high_end, address_bits);
    registers.into_iter().map(|register| (register.index, register.value)).collect()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Without O_NONBLOCK, opening a FIFO would wait for its other end.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(FirmwareImage::MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
