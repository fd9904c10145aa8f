//! ACPI tables (spec hypervisor-platform section 9): RSDP and XSDT, FADT with full power management
//! registers, FACS, MADT, WAET, SPCR, DSDT, TPM2 for a machine with a TPM, and SRAT for one whose
//! memory can grow.

mod dsdt;
mod fadt;
mod generation;
mod madt;
mod presence;
mod spcr;
mod srat;
mod tpm2;
mod waet;

use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::memory::{ACPI_BASE, ACPI_END, AddressRange, GuestMemory, MemoryLayout};

const OEM_ID: [u8; 6] = *b"SYNTHV";
const OEM_TABLE_ID: [u8; 8] = *b"SYNTHVM ";
const OEM_REVISION: u32 = 1;
/// Bytes of a table's header.
const HEADER: u32 = 36;

/// The hardware that the tables describe.
#[derive(Clone, Debug)]
pub(crate) struct Platform {
    /// APIC ids, in the order of the processor numbers.
    pub apic_ids: Vec<u32>,
    /// Whether the machine has a PIT (with its interrupt on IOAPIC pin 2) and a pair of PICs.
    pub legacy_timer: bool,
    /// The MMIO windows for VMBus devices.
    pub mmio: [AddressRange; 2],
    /// The memory window of the PCI bus, if the machine has one.
    pub pci: Option<AddressRange>,
    /// The registers of the TPM 2.0, if there is one.
    pub tpm: Option<AddressRange>,
    /// The page of the TPM's physical presence interface, if there is firmware that serves it.
    pub presence: Option<AddressRange>,
    /// The page that begins with the generation id, if the machine's tables name it.
    pub generation: Option<AddressRange>,
    /// The layout of memory, if memory can be added while the guest runs.
    pub hot_add: Option<MemoryLayout>,
    /// Whether the guest may hibernate: it finds `_S4`.
    pub hibernation: bool,
}

/// An error in writing the tables.
#[derive(Debug, thiserror::Error)]
pub enum AcpiError {
    /// The tables exceed their region. Cannot happen below 65 processors.
    #[error("ACPI tables need {0} bytes, more than their region has")]
    TooLarge(u64),
    /// A write to guest memory failed.
    #[error("writing ACPI tables: {0}")]
    Memory(#[from] GuestMemoryError),
}

/// Returns the MADT alone, for firmware that has the other tables.
pub(crate) fn madt(platform: &Platform) -> Sdt {
    madt::build(platform)
}

/// Returns the SRAT alone, for firmware that has the other tables. `None`: no memory can be added.
pub(crate) fn srat(platform: &Platform) -> Option<Sdt> {
    Some(srat::build(&platform.apic_ids, platform.hot_add.as_ref()?))
}

/// The tables as bytes, for an address that may not be known yet.
#[derive(Clone, Debug)]
pub(crate) struct Tables {
    /// The RSDP, whose pointer to the XSDT is at [`Tables::RSDP_POINTER`].
    pub rsdp: Vec<u8>,
    /// All other tables, each at a multiple of [`Tables::ALIGN`].
    pub bytes: Vec<u8>,
    /// The pointers in `bytes` to tables in `bytes`: offset and size.
    pub pointers: Vec<(u32, u8)>,
    /// Offset and length of the tables that have pointers, so that their checksums depend on the
    /// address.
    pub movable: Vec<(u32, u32)>,
}

impl Tables {
    /// Alignment of each table; the FACS requires it.
    pub(crate) const ALIGN: u64 = 64;
    /// Offset of the 64-bit pointer to the XSDT in the RSDP.
    pub(crate) const RSDP_POINTER: u32 = 24;
    /// Offset of the checksum over the whole RSDP.
    pub(crate) const RSDP_CHECKSUM: u32 = 32;
    /// Offset of a table's checksum.
    pub(crate) const CHECKSUM: u32 = 9;

    /// Builds the tables for the address `base`, a multiple of [`Tables::ALIGN`].
    pub(crate) fn build(platform: &Platform, base: u64) -> Tables {
        let mut tables = Tables {
            rsdp: Vec::new(),
            bytes: Vec::new(),
            pointers: Vec::new(),
            movable: Vec::new(),
        };
        let facs = base + tables.put(&bytes(&FACS::new()));
        let dsdt = base + tables.put(dsdt::build(platform).as_slice());
        let fadt = tables.put_with_pointers(&bytes(&fadt::build(facs, dsdt)), &fadt::POINTERS);
        let mut listed = vec![
            fadt,
            tables.put(madt::build(platform).as_slice()),
            tables.put(waet::build().as_slice()),
            tables.put(spcr::build().as_slice()),
        ];
        if let Some(registers) = platform.tpm {
            listed.push(tables.put(tpm2::build(registers).as_slice()));
        }
        if let Some(srat) = srat(platform) {
            listed.push(tables.put(srat.as_slice()));
        }
        let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
        for offset in &listed {
            xsdt.add_entry(base + offset);
        }
        let entries: Vec<(u32, u8)> =
            (HEADER..).step_by(8).map(|at| (at, 8)).take(listed.len()).collect();
        let xsdt = base + tables.put_with_pointers(&bytes(&xsdt), &entries);
        tables.rsdp = bytes(&Rsdp::new(OEM_ID, xsdt));
        tables
    }

    /// Appends a table and returns its offset.
    fn put(&mut self, table: &[u8]) -> u64 {
        let offset = self.bytes.len().next_multiple_of(Tables::ALIGN as usize);
        self.bytes.resize(offset, 0);
        self.bytes.extend_from_slice(table);
        offset as u64
    }

    /// Appends a table that has pointers (offset in the table, and size).
    fn put_with_pointers(&mut self, table: &[u8], pointers: &[(u32, u8)]) -> u64 {
        let offset = self.put(table);
        self.movable.push((offset as u32, table.len() as u32));
        self.pointers.extend(pointers.iter().map(|(at, size)| (offset as u32 + at, *size)));
        offset
    }
}

/// Writes all tables into guest memory and returns the address of the RSDP.
///
/// # Errors
/// [`AcpiError`].
pub(crate) fn write(memory: &GuestMemory, platform: &Platform) -> Result<u64, AcpiError> {
    // The RSDP is first, at its legacy address.
    let base = (ACPI_BASE + Rsdp::len() as u64).next_multiple_of(Tables::ALIGN);
    let tables = Tables::build(platform, base);
    let end = base + tables.bytes.len() as u64;
    if end > ACPI_END {
        return Err(AcpiError::TooLarge(end - ACPI_BASE));
    }
    memory.write_slice(&tables.rsdp, GuestAddress(ACPI_BASE))?;
    memory.write_slice(&tables.bytes, GuestAddress(base))?;
    Ok(ACPI_BASE)
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// Returns a table that has a header only; the caller appends the content.
fn table(signature: [u8; 4], revision: u8) -> Sdt {
    Sdt::new(signature, HEADER, revision, OEM_ID, OEM_TABLE_ID, OEM_REVISION)
}

#[cfg(test)]
mod tests;
