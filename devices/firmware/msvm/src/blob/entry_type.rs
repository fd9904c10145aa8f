//! The types of entries.

use vmbus_protocol::wire_enum;

wire_enum! {
    /// The type of an entry. Firmware skips types that it does not know.
    #[derive(PartialOrd, Ord, Hash)]
    pub enum EntryType: u32 {
        /// Number of entries and of bytes; the first entry.
        Count = 0x00,
        /// Pages of the image, and the form of the memory map.
        BiosInformation = 0x01,
        /// ACPI table SRAT.
        Srat = 0x02,
        /// Memory ranges.
        MemoryMap = 0x03,
        /// 64 random bytes.
        Entropy = 0x04,
        /// The VM's GUID.
        BiosGuid = 0x05,
        /// Serial number of the system.
        SystemSerial = 0x06,
        /// Serial number of the base board.
        BoardSerial = 0x07,
        /// Serial number of the chassis.
        ChassisSerial = 0x08,
        /// Asset tag of the chassis.
        ChassisAssetTag = 0x09,
        /// Flags.
        Flags = 0x12,
        /// Numbers of processors.
        Processors = 0x13,
        /// The two MMIO windows.
        Mmio = 0x14,
        /// Any ACPI table.
        AcpiTable = 0x16,
        /// ACPI table MADT.
        Madt = 0x18,
        /// Manufacturer of the system.
        SystemManufacturer = 0x1A,
        /// Product name of the system.
        SystemProduct = 0x1B,
        /// Version of the system.
        SystemVersion = 0x1C,
        /// Stock number of the system.
        SystemSku = 0x1D,
        /// Family of the system.
        SystemFamily = 0x1E,
    }
}

impl EntryType {
    /// The types without which the firmware stops.
    pub const MANDATORY: [EntryType; 7] = [
        EntryType::BiosInformation,
        EntryType::MemoryMap,
        EntryType::Entropy,
        EntryType::BiosGuid,
        EntryType::Flags,
        EntryType::Processors,
        EntryType::Mmio,
    ];

    /// Returns the only length of the content in bytes, where the type has one.
    #[must_use]
    pub const fn content_len(self) -> Option<usize> {
        match self {
            EntryType::Count | EntryType::BiosInformation | EntryType::Flags => Some(8),
            EntryType::Entropy => Some(64),
            EntryType::BiosGuid | EntryType::Processors => Some(16),
            EntryType::Mmio => Some(32),
            _ => None,
        }
    }

    /// Returns whether the content is one ACPI table.
    #[must_use]
    pub const fn is_acpi_table(self) -> bool {
        matches!(self, EntryType::Srat | EntryType::AcpiTable | EntryType::Madt)
    }
}

/// A text of the SMBIOS tables. Absent ones get the firmware's own text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmbiosText {
    /// Serial number of the system.
    SystemSerial,
    /// Serial number of the base board.
    BoardSerial,
    /// Serial number of the chassis.
    ChassisSerial,
    /// Asset tag of the chassis.
    ChassisAssetTag,
    /// Manufacturer of the system.
    SystemManufacturer,
    /// Product name of the system.
    SystemProduct,
    /// Version of the system.
    SystemVersion,
    /// Stock number of the system.
    SystemSku,
    /// Family of the system.
    SystemFamily,
}

impl From<SmbiosText> for EntryType {
    fn from(text: SmbiosText) -> EntryType {
        match text {
            SmbiosText::SystemSerial => EntryType::SystemSerial,
            SmbiosText::BoardSerial => EntryType::BoardSerial,
            SmbiosText::ChassisSerial => EntryType::ChassisSerial,
            SmbiosText::ChassisAssetTag => EntryType::ChassisAssetTag,
            SmbiosText::SystemManufacturer => EntryType::SystemManufacturer,
            SmbiosText::SystemProduct => EntryType::SystemProduct,
            SmbiosText::SystemVersion => EntryType::SystemVersion,
            SmbiosText::SystemSku => EntryType::SystemSku,
            SmbiosText::SystemFamily => EntryType::SystemFamily,
        }
    }
}
