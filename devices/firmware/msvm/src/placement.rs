//! The firmware's places in guest memory (spec firmware-windows section A2).

/// Guest address of the image.
pub const IMAGE_BASE: u64 = 0x10_0000;
pub(crate) const PAGE: u64 = 0x1000;

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
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
