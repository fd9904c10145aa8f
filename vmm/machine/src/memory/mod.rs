//! Guest physical memory: the layout of RAM and MMIO windows, the memfd that backs the RAM, memory
//! that is added later, and the memory of devices in the windows.

mod hot_add;
mod layout;
mod ram;
mod window;

pub use hot_add::HotAddSlots;
pub use layout::AddressRange;
pub(crate) use layout::{
    ACPI_BASE, ACPI_END, GENERATION_MMIO, HIGH_RAM_BASE, IDENTITY_MAP_BASE, IOAPIC_BASE,
    LAPIC_BASE, LOW_MMIO, MemoryLayout, PRESENCE_MMIO, SMBIOS_BASE, SMBIOS_END, TPM_MMIO, TSS_BASE,
};
#[cfg(test)]
pub(crate) use layout::{HIGH_MMIO_SIZE, LOW_RAM_LIMIT};
pub(crate) use ram::allocate;
pub use ram::{GuestMemory, MemoryError};
pub use window::{WindowError, WindowMemory};
