//! The firmware's places in guest memory (spec firmware-windows section A2).

use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::entry::EntryState;
use crate::image::FirmwareImage;
use crate::memory::Memory;

/// Guest address of the image.
pub const IMAGE_BASE: u64 = 0x10_0000;
const PAGE: u64 = 0x1000;
const PRESENT_WRITABLE: u64 = 3;
const LARGE_PAGE: u64 = 0x80;
/// Null, 64-bit code, data, and a spare entry.
const GDT: [u64; 4] = [0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF, 0];

/// Addresses of what is loaded with an image: the image, then six pages of page tables, the GDT's
/// page, two empty pages, and the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    image_end: u64,
}

impl Placement {
    /// Returns the placement of an image of `image_len` bytes.
    pub(crate) const fn new(image_len: u64) -> Placement {
        Placement { image_end: IMAGE_BASE + image_len }
    }

    /// Returns the address of the page tables: PML4, PDPT, four page directories.
    #[must_use]
    pub const fn page_tables(self) -> u64 {
        self.image_end
    }

    /// Returns the address of the GDT, which has a page.
    #[must_use]
    pub const fn gdt(self) -> u64 {
        self.page_tables() + 6 * PAGE
    }

    /// Returns the address of the configuration blob.
    #[must_use]
    pub const fn blob(self) -> u64 {
        // The GDT's page, and two pages that the firmware uses under memory isolation.
        self.gdt() + 3 * PAGE
    }

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
    fn test_placement_of_both_sizes_matches_the_firmware_formula() {
        let small = Placement::new(6 << 20);
        assert_eq!(
            (small.page_tables(), small.gdt(), small.blob()),
            (0x700000, 0x706000, 0x709000)
        );
        let large = Placement::new(8 << 20);
        assert_eq!(
            (large.page_tables(), large.gdt(), large.blob()),
            (0x900000, 0x906000, 0x909000)
        );
    }

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
