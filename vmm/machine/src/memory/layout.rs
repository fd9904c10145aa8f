//! The layout of guest physical memory (spec hypervisor-platform sections 9.1 and 10.2).

/// Base address of the local APICs.
pub(crate) const LAPIC_BASE: u64 = 0xFEE0_0000;
/// Base address of the IOAPIC.
pub(crate) const IOAPIC_BASE: u64 = 0xFEC0_0000;
/// Base address of the page in which Intel CPUs without unrestricted guests keep an identity map,
/// and of the three pages of their TSS behind it. Like QEMU's, they leave 16 MiB for firmware.
pub(crate) const IDENTITY_MAP_BASE: u64 = 0xFEFF_C000;
/// Base address of KVM's TSS.
pub(crate) const TSS_BASE: u64 = IDENTITY_MAP_BASE + 0x1000;
/// Lowest address of firmware, which ends at 4 GiB.
pub(crate) const FIRMWARE_BASE: u64 = 0xFF00_0000;
/// Lowest address of the PCI window: firmware never places a PCI resource below it.
const PCI_WINDOW_MIN: u64 = 0x8000_0000;
/// The most RAM below 4 GiB, in bytes. The gigabyte above it holds the VMBus window and the APICs,
/// with space for PCI.
pub(crate) const LOW_RAM_LIMIT: u64 = 0xC000_0000;
/// Base address of the remaining RAM.
pub(crate) const HIGH_RAM_BASE: u64 = 1 << 32;
/// The MMIO window for VMBus devices below 4 GiB. It ends below the IOAPIC.
pub(crate) const LOW_MMIO: AddressRange = AddressRange { start: 0xF800_0000, end: 0xFE00_0000 };
/// The registers of a TPM, at the address that firmware expects (spec firmware-windows section
/// D7.1). They are above the window for VMBus devices.
pub(crate) const TPM_MMIO: AddressRange = AddressRange { start: 0xFED4_0000, end: 0xFED4_1000 };
/// The page of the TPM's physical presence interface, at the address that QEMU's has.
pub(crate) const PRESENCE_MMIO: AddressRange =
    AddressRange { start: 0xFED4_5000, end: 0xFED4_6000 };
/// The page with the generation id, beside the registers of a TPM. It is in no memory map, as the
/// generation id must not be in memory that a guest uses for itself.
pub(crate) const GENERATION_MMIO: AddressRange =
    AddressRange { start: 0xFED4_6000, end: 0xFED4_7000 };
/// Size of the MMIO window above RAM in bytes; one video device and some pass-through BARs need
/// less.
pub(crate) const HIGH_MMIO_SIZE: u64 = 4 << 30;
/// Alignment of the MMIO window above RAM, so that large pages can map it.
pub(crate) const HIGH_MMIO_ALIGN: u64 = 2 << 20;
/// Alignment of the window for memory that is added later: the largest block that a guest may want
/// to add as a whole.
pub(crate) const HOT_ADD_ALIGN: u64 = 2 << 30;
/// Legacy address of the RSDP; the other tables follow it.
pub(crate) const ACPI_BASE: u64 = 0xE_0000;
/// End of the region for ACPI tables.
pub(crate) const ACPI_END: u64 = 0xF_0000;
/// Address of the SMBIOS entry point, for which a guest without firmware searches from here on; the
/// tables follow it.
pub(crate) const SMBIOS_BASE: u64 = ACPI_END;
/// End of the region for SMBIOS tables.
pub(crate) const SMBIOS_END: u64 = 0x10_0000;

// KVM's own pages are above the APICs and below all firmware. On AMD hosts KVM ignores an overlap.
const _: () = assert!(
    IDENTITY_MAP_BASE > LAPIC_BASE + 0xFFF
        && TSS_BASE + 0x3000 <= FIRMWARE_BASE
        && FIRMWARE_BASE + synthvm_firmware::MAX_IMAGE_BYTES == HIGH_RAM_BASE
);

/// Guest physical addresses `start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

impl AddressRange {
    /// Returns the number of bytes.
    pub const fn len(self) -> u64 {
        self.end - self.start
    }

    /// Returns whether the range has no bytes.
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// Guest physical memory of one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLayout {
    /// RAM from 0 up.
    pub low_ram: AddressRange,
    /// RAM from 4 GiB up; empty in small machines.
    pub high_ram: AddressRange,
    /// Addresses of memory that can be added while the guest runs, above its RAM; empty without.
    pub hot_add: AddressRange,
    /// MMIO window for VMBus devices above all RAM.
    pub high_mmio: AddressRange,
}

impl MemoryLayout {
    /// Lays out `size` bytes of RAM. `size` must be a multiple of 4 KiB.
    pub const fn new(size: u64) -> MemoryLayout {
        MemoryLayout::with_hot_add(size, 0)
    }

    /// Lays out `size` bytes of RAM and a window for `hot_add` bytes more. Both must be multiples
    /// of 4 KiB.
    pub const fn with_hot_add(size: u64, hot_add: u64) -> MemoryLayout {
        let low = if size < LOW_RAM_LIMIT { size } else { LOW_RAM_LIMIT };
        let high_end = HIGH_RAM_BASE + (size - low);
        let window = if hot_add == 0 { high_end } else { high_end.next_multiple_of(HOT_ADD_ALIGN) };
        let mmio = (window + hot_add).next_multiple_of(HIGH_MMIO_ALIGN);
        MemoryLayout {
            low_ram: AddressRange { start: 0, end: low },
            high_ram: AddressRange { start: HIGH_RAM_BASE, end: high_end },
            hot_add: AddressRange { start: window, end: window + hot_add },
            high_mmio: AddressRange { start: mmio, end: mmio + HIGH_MMIO_SIZE },
        }
    }

    /// Returns the addresses that firmware may give to PCI devices: between RAM and the window of
    /// VMBus (spec firmware-windows section B6.1).
    pub const fn pci_window(&self) -> AddressRange {
        let low = self.low_ram.end;
        let start = if low > PCI_WINDOW_MIN { low } else { PCI_WINDOW_MIN };
        AddressRange { start, end: LOW_MMIO.start }
    }

    /// Returns the bytes of RAM, without memory that can be added.
    pub const fn ram_size(&self) -> u64 {
        self.low_ram.len() + self.high_ram.len()
    }

    /// Returns the number of address bits that a guest CPU needs to reach all of the layout.
    pub const fn address_bits(&self) -> u32 {
        64 - (self.high_mmio.end - 1).leading_zeros()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_layout_small_has_no_high_ram() {
        let layout = MemoryLayout::new(512 << 20);
        assert_eq!(layout.low_ram, AddressRange { start: 0, end: 512 << 20 });
        assert!(layout.high_ram.is_empty());
        assert_eq!(layout.high_mmio.start, HIGH_RAM_BASE);
    }

    #[test]
    fn test_layout_five_gib_splits_at_the_hole() {
        let layout = MemoryLayout::new(5 << 30);
        assert_eq!(layout.low_ram.end, LOW_RAM_LIMIT);
        assert_eq!(
            layout.high_ram,
            AddressRange { start: HIGH_RAM_BASE, end: HIGH_RAM_BASE + (2 << 30) }
        );
        assert_eq!(layout.ram_size(), 5 << 30);
        assert_eq!(layout.address_bits(), 34);
    }

    #[test]
    fn test_layout_odd_size_keeps_high_window_aligned_and_apart() {
        for mib in [16, 3071, 3072, 3073, 4097, 8191] {
            let layout = MemoryLayout::new(mib << 20);
            assert_eq!(layout.high_mmio.start % HIGH_MMIO_ALIGN, 0);
            assert!(layout.high_mmio.start >= layout.high_ram.end);
            assert!(layout.low_ram.end <= LOW_MMIO.start);
            assert_eq!(layout.ram_size(), mib << 20);
        }
    }

    #[test]
    fn test_layout_with_hot_add_has_an_aligned_window_between_ram_and_mmio() {
        for (mib, added) in [(512, 7680), (3072, 1), (5120, 1024), (5121, 3 << 10)] {
            let layout = MemoryLayout::with_hot_add(mib << 20, added << 20);
            let window = layout.hot_add;
            assert_eq!((window.start % HOT_ADD_ALIGN, window.len()), (0, added << 20));
            assert!(layout.high_ram.end <= window.start && window.end <= layout.high_mmio.start);
            assert_eq!(layout.high_mmio.start % HIGH_MMIO_ALIGN, 0);
            assert_eq!(layout.ram_size(), mib << 20);
        }
    }

    #[test]
    fn test_pci_window_is_between_ram_and_the_vmbus_window() {
        for mib in [16, 2048, 3071, 3072, 5120] {
            let layout = MemoryLayout::new(mib << 20);
            let window = layout.pci_window();
            assert!(layout.low_ram.end <= window.start && window.start >= 2 << 30);
            assert!(window.start < window.end && window.end == LOW_MMIO.start);
        }
    }

    // The low window leaves RAM and the APICs alone.
    const _: () = assert!(
        LOW_MMIO.end <= IOAPIC_BASE
            && LOW_MMIO.end <= LAPIC_BASE
            && LOW_MMIO.start >= LOW_RAM_LIMIT
    );
    // So do the registers of a TPM and the generation id.
    const _: () = assert!(
        LOW_MMIO.end <= TPM_MMIO.start
            && IOAPIC_BASE < TPM_MMIO.start
            && TPM_MMIO.end <= PRESENCE_MMIO.start
            && PRESENCE_MMIO.end <= GENERATION_MMIO.start
            && GENERATION_MMIO.end <= LAPIC_BASE
    );
}
