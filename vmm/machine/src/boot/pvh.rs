//! The start of an ELF kernel through its PVH entry: 32-bit protected mode without paging, and one
//! structure that describes the machine (Xen, `docs/misc/pvh.pandoc`; `hvm_start_info` of
//! `xen/include/public/arch-x86/hvm/start_info.h`).

use linux_loader::loader::elf::start_info::{
    XEN_HVM_MEMMAP_TYPE_RAM, XEN_HVM_MEMMAP_TYPE_RESERVED, XEN_HVM_START_MAGIC_VALUE,
};
use vm_memory::{Bytes, GuestAddress};

use super::params::{E820_RAM, e820};
use super::{BootError, place};
use crate::memory::{AddressRange, GuestMemory, MemoryLayout};

/// The version with a memory map.
const VERSION: u32 = 1;
/// Bytes of the structure and of its entries.
const START_INFO: u64 = 56;
const MODULE: u64 = 32;

/// Writes the command line and the structure. Returns the structure's address.
pub(super) fn write(
    memory: &GuestMemory,
    layout: &MemoryLayout,
    initrd: Option<AddressRange>,
    cmdline: &str,
    rsdp: u64,
) -> Result<u64, BootError> {
    memory.write_slice(cmdline.as_bytes(), GuestAddress(place::CMDLINE))?;
    memory.write_obj(0u8, GuestAddress(place::CMDLINE + cmdline.len() as u64))?;

    let info = place::ZERO_PAGE;
    let module = (info + START_INFO).next_multiple_of(8);
    let map = module + MODULE;
    let entries = e820(layout);
    let (modules, modules_at) = if initrd.is_some() { (1, module) } else { (0, 0) };

    let mut bytes = Vec::new();
    for word in [XEN_HVM_START_MAGIC_VALUE, VERSION, 0, modules] {
        bytes.extend(word.to_le_bytes());
    }
    for address in [modules_at, place::CMDLINE, rsdp, map, entries.len() as u64] {
        bytes.extend(address.to_le_bytes());
    }
    let initrd = initrd.map_or([0; 2], |range| [range.start, range.len()]);
    for value in [initrd[0], initrd[1], 0, 0] {
        bytes.extend(value.to_le_bytes());
    }
    for entry in entries {
        let kind = match entry.r#type {
            E820_RAM => XEN_HVM_MEMMAP_TYPE_RAM,
            _ => XEN_HVM_MEMMAP_TYPE_RESERVED,
        };
        for value in [entry.addr, entry.size, u64::from(kind)] {
            bytes.extend(value.to_le_bytes());
        }
    }
    memory.write_slice(&bytes, GuestAddress(info))?;
    Ok(info)
}
