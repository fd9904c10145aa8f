//! ACPI tables (spec hypervisor-platform section 9): RSDP and XSDT, FADT with full power management
//! registers, FACS, MADT, DSDT.

mod dsdt;
mod fadt;
mod madt;
mod waet;

use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::memory::{ACPI_BASE, ACPI_END, AddressRange, GuestMemory};

const OEM_ID: [u8; 6] = *b"SYNTHV";
const OEM_TABLE_ID: [u8; 8] = *b"SYNTHVM ";
const OEM_REVISION: u32 = 1;

/// The hardware that the tables describe.
#[derive(Clone, Debug)]
pub(crate) struct Platform {
    /// APIC ids, in the order of the processor numbers.
    pub apic_ids: Vec<u32>,
    /// Whether the machine has a PIT (with its interrupt on IOAPIC pin 2) and a pair of PICs.
    pub legacy_timer: bool,
    /// The MMIO windows for VMBus devices.
    pub mmio: [AddressRange; 2],
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

/// Writes all tables into guest memory and returns the address of the RSDP.
///
/// # Errors
/// [`AcpiError`].
pub(crate) fn write(memory: &GuestMemory, platform: &Platform) -> Result<u64, AcpiError> {
    let mut next = Place { memory, at: ACPI_BASE };
    // The RSDP is first, at its legacy address, but needs the address of the XSDT: it is written
    // last.
    next.at += Rsdp::len() as u64;

    let facs = next.put(&bytes(&FACS::new()))?;
    let dsdt = next.put(dsdt::build(platform).as_slice())?;
    let tables = [
        next.put(&bytes(&fadt::build(facs, dsdt)))?,
        next.put(madt::build(platform).as_slice())?,
        next.put(waet::build().as_slice())?,
    ];
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    for table in tables {
        xsdt.add_entry(table);
    }
    let xsdt = next.put(&bytes(&xsdt))?;
    memory.write_slice(&bytes(&Rsdp::new(OEM_ID, xsdt)), GuestAddress(ACPI_BASE))?;
    Ok(ACPI_BASE)
}

struct Place<'a> {
    memory: &'a GuestMemory,
    at: u64,
}

impl Place<'_> {
    /// Writes a table at the next 64-byte boundary (the FACS requires it) and returns its address.
    fn put(&mut self, table: &[u8]) -> Result<u64, AcpiError> {
        let start = self.at.next_multiple_of(64);
        let end = start + table.len() as u64;
        if end > ACPI_END {
            return Err(AcpiError::TooLarge(end - ACPI_BASE));
        }
        self.memory.write_slice(table, GuestAddress(start))?;
        self.at = end;
        Ok(start)
    }
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// Returns a table that has a header only; the caller appends the content.
fn table(signature: [u8; 4], revision: u8) -> Sdt {
    Sdt::new(signature, 36, revision, OEM_ID, OEM_TABLE_ID, OEM_REVISION)
}

#[cfg(test)]
mod tests;
