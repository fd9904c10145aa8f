//! The zero page: setup header, command line, E820 map, initrd and RSDP.

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use vm_memory::{Bytes, GuestAddress};

use super::kernel::Loaded;
use super::{BootError, place};
use crate::memory::{ACPI_BASE, AddressRange, GuestMemory, MemoryLayout};

pub(super) const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;
/// The boot loader id of a loader that has no assigned number.
const LOADER_UNDEFINED: u8 = 0xFF;
/// Offset of `acpi_rsdp_addr` in the zero page (kernel 5.0 and newer).
const RSDP_OFFSET: u64 = 0x70;

/// Writes the command line and the zero page.
pub(super) fn write(
    memory: &GuestMemory,
    layout: &MemoryLayout,
    kernel: &Loaded,
    initrd: Option<AddressRange>,
    cmdline: &str,
    rsdp: u64,
) -> Result<(), BootError> {
    memory.write_slice(cmdline.as_bytes(), GuestAddress(place::CMDLINE))?;
    memory.write_obj(0u8, GuestAddress(place::CMDLINE + cmdline.len() as u64))?;

    let mut params = boot_params { hdr: kernel.header, ..Default::default() };
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.cmd_line_ptr = place::CMDLINE as u32;
    if let Some(initrd) = initrd {
        params.hdr.ramdisk_image = initrd.start as u32;
        params.hdr.ramdisk_size = initrd.len() as u32;
        params.ext_ramdisk_size = (initrd.len() >> 32) as u32;
    }
    let map = e820(layout);
    params.e820_entries = map.len() as u8;
    params.e820_table[..map.len()].copy_from_slice(&map);
    memory.write_obj(params, GuestAddress(place::ZERO_PAGE))?;
    memory.write_obj(rsdp, GuestAddress(place::ZERO_PAGE + RSDP_OFFSET))?;
    Ok(())
}

/// Returns the memory map. It never contains MMIO windows.
pub(super) fn e820(layout: &MemoryLayout) -> Vec<boot_e820_entry> {
    let entry = |start: u64, end: u64, kind: u32| boot_e820_entry {
        addr: start,
        size: end - start,
        r#type: kind,
    };
    let mut map = vec![
        entry(0, place::LOW_END, E820_RAM),
        entry(place::LOW_END, 0xA_0000, E820_RESERVED),
        entry(ACPI_BASE, place::HIMEM, E820_RESERVED),
        entry(place::HIMEM, layout.low_ram.end, E820_RAM),
    ];
    if !layout.high_ram.is_empty() {
        map.push(entry(layout.high_ram.start, layout.high_ram.end, E820_RAM));
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{HIGH_RAM_BASE, LOW_MMIO, LOW_RAM_LIMIT};

    #[test]
    fn test_e820_sorted_and_without_mmio() {
        for mib in [64u64, 3072, 5120] {
            let map = e820(&MemoryLayout::new(mib << 20));
            let mut end = 0;
            for entry in &map {
                let (addr, size) = (entry.addr, entry.size);
                assert!(addr >= end);
                end = addr + size;
                assert!(end <= LOW_RAM_LIMIT || addr >= HIGH_RAM_BASE);
                assert!(end <= LOW_MMIO.start || addr >= LOW_MMIO.end);
            }
        }
    }

    #[test]
    fn test_e820_five_gib_lists_high_ram() {
        let map = e820(&MemoryLayout::new(5 << 30));
        let last = map.last().unwrap();
        assert_eq!(({ last.addr }, { last.size }), (HIGH_RAM_BASE, 2 << 30));
    }
}
