//! The SMBIOS tables of a machine, and their place where no firmware publishes them.

use synthvm_firmware::smbios::{Identity, SmbiosFiles, SystemTables};
use synthvm_msvm::{BlobWriter, SmbiosText};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};
use vmbus_protocol::Guid;

use crate::memory::{AddressRange, GuestMemory, MemoryLayout, SMBIOS_BASE, SMBIOS_END};
use crate::options::SmbiosConfig;

/// The identity of a machine, as SMBIOS shows it.
#[derive(Clone, Debug)]
pub(crate) struct MachineIdentity {
    /// The UUID.
    pub uuid: Guid,
    /// The texts.
    pub texts: SmbiosConfig,
}

impl MachineIdentity {
    /// Returns the tables of a machine with `cpus` vCPUs.
    pub(crate) fn tables(&self, cpus: u16, layout: &MemoryLayout) -> SmbiosFiles {
        let texts = &self.texts;
        let given = |text: &Option<String>| text.clone().unwrap_or_default();
        let tables = SystemTables {
            identity: Identity {
                manufacturer: texts.manufacturer().into(),
                product: texts.product().into(),
                version: texts.version().into(),
                serial: given(&texts.serial),
                sku: given(&texts.sku),
                family: given(&texts.family),
                asset_tag: given(&texts.asset_tag),
                uuid: self.uuid.to_bytes(),
            },
            cpus,
            ram: ram(layout),
        };
        tables.files()
    }

    /// Writes the tables into guest memory, where a guest without firmware looks for them.
    pub(crate) fn write(
        &self,
        memory: &GuestMemory,
        layout: &MemoryLayout,
        cpus: u16,
    ) -> Result<(), GuestMemoryError> {
        let files = self.tables(cpus, layout);
        let tables = (SMBIOS_BASE + files.anchor.len() as u64).next_multiple_of(16);
        if tables + files.tables.len() as u64 > SMBIOS_END {
            // 64 vCPUs with the longest texts fit; a guest can do without the tables.
            return Ok(());
        }
        memory.write_slice(&files.tables, GuestAddress(tables))?;
        memory.write_slice(&files.anchor_for(tables), GuestAddress(SMBIOS_BASE))
    }

    /// Adds the texts that are given to the configuration of Hyper-V's firmware, which has its own
    /// defaults.
    pub(crate) fn add_to(&self, blob: BlobWriter) -> BlobWriter {
        let texts = &self.texts;
        [
            (SmbiosText::SystemManufacturer, &texts.manufacturer),
            (SmbiosText::SystemProduct, &texts.product),
            (SmbiosText::SystemVersion, &texts.version),
            (SmbiosText::SystemSerial, &texts.serial),
            (SmbiosText::BoardSerial, &texts.serial),
            (SmbiosText::ChassisSerial, &texts.serial),
            (SmbiosText::SystemSku, &texts.sku),
            (SmbiosText::SystemFamily, &texts.family),
            (SmbiosText::ChassisAssetTag, &texts.asset_tag),
        ]
        .into_iter()
        .filter_map(|(text, value)| Some((text, value.as_deref()?)))
        .fold(blob, |blob, (text, value)| blob.smbios(text, value))
    }
}

/// Returns the RAM as address ranges, ascending.
pub(crate) fn ram(layout: &MemoryLayout) -> Vec<(u64, u64)> {
    let ranges = [layout.low_ram, layout.high_ram].into_iter();
    let is_used = |range: &AddressRange| !range.is_empty();
    ranges.filter(is_used).map(|range| (range.start, range.end)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::allocate;

    #[test]
    fn test_tables_of_64_processors_and_long_texts_are_in_memory_with_a_good_anchor() {
        let text = || Some("x".repeat(SmbiosConfig::MAX_LEN));
        let texts = SmbiosConfig {
            hyperv: false,
            manufacturer: text(),
            product: text(),
            version: text(),
            serial: text(),
            sku: text(),
            family: text(),
            asset_tag: text(),
        };
        let identity = MachineIdentity { uuid: Guid::from_bytes([7; 16]), texts };
        let layout = MemoryLayout::new(16 << 20);
        let memory = allocate(&layout, false).unwrap();
        identity.write(&memory, &layout, 64).unwrap();
        let mut anchor = [0; 24];
        memory.read_slice(&mut anchor, GuestAddress(0xF_0000)).unwrap();
        assert_eq!(anchor[..5], *b"_SM3_");
        assert_eq!(anchor.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        let len = u32::from_le_bytes(anchor[12..16].try_into().unwrap());
        let at = u64::from_le_bytes(anchor[16..24].try_into().unwrap());
        assert!(at >= 0xF_0018 && at + u64::from(len) <= 0x10_0000);
        let mut start = [0; 2];
        memory.read_slice(&mut start, GuestAddress(at)).unwrap();
        assert_eq!(start, [0, 26], "a BIOS structure");
    }
}
