//! The firmware's start: the image and its tables in guest memory (spec firmware-windows section
//! A2).

use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::entry::EntryState;
use crate::image::FirmwareImage;
use crate::memory::Memory;
use crate::placement::{IMAGE_BASE, PAGE, Placement};

const PRESENT_WRITABLE: u64 = 3;
const LARGE_PAGE: u64 = 0x80;
/// Null, 64-bit code, data, and a spare entry.
const GDT: [u64; 4] = [0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF, 0];

impl Placement {
    /// Writes the image, page tables, GDT and `blob` into guest memory, and returns the state of
    /// the processor that starts it.
    ///
    /// # Errors
    /// A range is not RAM: the machine is too small.
    pub fn load(
        self,
        memory: &Memory,
        image: &FirmwareImage,
        blob: &[u8],
    ) -> Result<EntryState, GuestMemoryError> {
        memory.write_slice(image.bytes(), GuestAddress(IMAGE_BASE))?;
        memory.write_slice(&self.table_bytes(), GuestAddress(self.page_tables()))?;
        memory.write_slice(blob, GuestAddress(self.blob()))?;
        Ok(EntryState::new(self, IMAGE_BASE + image.entry(), IMAGE_BASE + image.sec_volume()))
    }

    /// Returns the page tables, the GDT and the empty pages: nine pages.
    fn table_bytes(self) -> Vec<u8> {
        let pdpt = self.page_tables() + PAGE;
        let directories = pdpt + PAGE;
        let mut bytes = vec![0; 9 * PAGE as usize];
        let mut put = |address: u64, value: u64| {
            let at = (address - self.page_tables()) as usize;
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        };
        put(self.page_tables(), pdpt | PRESENT_WRITABLE);
        for gib in 0..4 {
            let directory = directories + PAGE * gib;
            put(pdpt + 8 * gib, directory | PRESENT_WRITABLE);
            for page in 0..512 {
                let address = gib << 30 | page << 21;
                put(directory + 8 * page, address | PRESENT_WRITABLE | LARGE_PAGE);
            }
        }
        for (index, descriptor) in (0..).zip(GDT) {
            put(self.gdt() + 8 * index, descriptor);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::le64;

    #[test]
    fn test_tables_map_four_gib_to_themselves() {
        let placement = Placement::new(6 << 20);
        let tables = placement.table_bytes();
        let entry = |address: u64| le64(&tables, (address - 0x70_0000) as usize).unwrap();
        for address in [0_u64, 0x70_0000, 0xFEE0_0000, 0xFFFF_F000] {
            let pdpt = entry(0x70_0000) & !0xFFF;
            let directory = entry(pdpt + 8 * (address >> 30)) & !0xFFF;
            let page = entry(directory + 8 * (address >> 21 & 511));
            assert_eq!(page, address & !0x1F_FFFF | 0x83);
        }
        assert_eq!(entry(placement.gdt()), 0);
        assert_eq!(entry(placement.gdt() + 8) >> 53 & 1, 1, "64-bit code");
    }
}
