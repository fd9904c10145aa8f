//! Guest physical memory: the layout of RAM and MMIO windows, and the memfd that backs the RAM.

mod layout;
mod ram;

pub(crate) use layout::{
    ACPI_BASE, ACPI_END, AddressRange, HIGH_RAM_BASE, IDENTITY_MAP_BASE, IOAPIC_BASE, LAPIC_BASE,
    LOW_MMIO, MemoryLayout, TPM_MMIO, TSS_BASE,
};
#[cfg(test)]
pub(crate) use layout::{HIGH_MMIO_SIZE, LOW_RAM_LIMIT};
pub(crate) use ram::allocate;
pub use ram::{GuestMemory, MemoryError};
