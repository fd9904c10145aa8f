//! Guest physical memory: where RAM and MMIO windows lie, and the memfd behind the RAM.

mod layout;
mod ram;

pub use layout::{
    ACPI_BASE, ACPI_END, AddressRange, HIGH_MMIO_ALIGN, HIGH_MMIO_SIZE, HIGH_RAM_BASE, IOAPIC_BASE,
    LAPIC_BASE, LOW_MMIO, LOW_RAM_LIMIT, MemoryLayout,
};
pub use ram::{GuestMemory, MemoryError, allocate};
