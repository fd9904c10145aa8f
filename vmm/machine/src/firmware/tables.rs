//! What the machine tells its firmware: memory, processors, ACPI and SMBIOS tables, and a kernel,
//! if there is one (spec firmware-windows section B4).

use synthvm_firmware::{FwCfg, FwCfgError, TableLoader, Zone, key};

use super::source::FirmwareSource;
use crate::acpi::{Platform, Tables};
use crate::memory::MemoryLayout;
use crate::smbios::{MachineIdentity, ram};

const RSDP_FILE: &str = "etc/acpi/rsdp";
const TABLES_FILE: &str = "etc/acpi/tables";

/// Type of RAM in `etc/e820`.
const E820_RAM: u32 = 1;

/// Returns the device with all items.
pub(super) fn build(
    source: &FirmwareSource,
    layout: &MemoryLayout,
    platform: &Platform,
    identity: &MachineIdentity,
) -> Result<FwCfg, FwCfgError> {
    let mut device = FwCfg::new();
    let cpus = platform.apic_ids.len() as u16;
    device.set(key::CPUS, cpus.to_le_bytes().to_vec())?;
    device.set(key::MAX_CPUS, cpus.to_le_bytes().to_vec())?;
    device.add_file("etc/e820", e820(layout))?;
    // Without a 64-bit PCI window, which could overlap that of VMBus.
    device.add_file("opt/ovmf/X-PciMmio64Mb", b"0".to_vec())?;
    set_acpi(&mut device, platform)?;
    let smbios = identity.tables(cpus, layout);
    device.add_file("etc/smbios/smbios-anchor", smbios.anchor)?;
    device.add_file("etc/smbios/smbios-tables", smbios.tables)?;
    add_kernel(&mut device, source)?;
    Ok(device)
}

fn e820(layout: &MemoryLayout) -> Vec<u8> {
    let mut map = Vec::new();
    for (start, end) in ram(layout) {
        map.extend(start.to_le_bytes());
        map.extend((end - start).to_le_bytes());
        map.extend(E820_RAM.to_le_bytes());
    }
    map
}

/// Sets the tables for the address 0, and the script by which firmware moves them.
pub(super) fn set_acpi(device: &mut FwCfg, platform: &Platform) -> Result<(), FwCfgError> {
    let Tables { mut rsdp, mut bytes, pointers, movable } = Tables::build(platform, 0);
    let mut script = TableLoader::new();
    script.allocate(RSDP_FILE, 16, Zone::FSegment);
    script.allocate(TABLES_FILE, Tables::ALIGN as u32, Zone::High);
    for (offset, size) in pointers {
        script.add_pointer(TABLES_FILE, TABLES_FILE, offset, size);
    }
    script.add_pointer(RSDP_FILE, TABLES_FILE, Tables::RSDP_POINTER, 8);
    for (start, len) in movable {
        let checksum = start + Tables::CHECKSUM;
        bytes[checksum as usize] = 0;
        script.add_checksum(TABLES_FILE, checksum, start, len);
    }
    rsdp[Tables::RSDP_CHECKSUM as usize] = 0;
    script.add_checksum(RSDP_FILE, Tables::RSDP_CHECKSUM, 0, rsdp.len() as u32);
    device.set_file(RSDP_FILE, rsdp)?;
    device.set_file(TABLES_FILE, bytes)?;
    device.set_file("etc/table-loader", script.into_bytes())
}

/// Adds the kernel as one EFI application, which firmware starts before it looks at disks.
fn add_kernel(device: &mut FwCfg, source: &FirmwareSource) -> Result<(), FwCfgError> {
    let size = |len: u64| (len as u32).to_le_bytes().to_vec();
    if let Some(kernel) = &source.kernel {
        device.set(key::KERNEL_SIZE, size(kernel.len()))?;
        device.set(key::KERNEL_DATA, kernel.clone())?;
        let cmdline = [source.cmdline.as_bytes(), &[0]].concat();
        device.set(key::CMDLINE_SIZE, size(cmdline.len() as u64))?;
        device.set(key::CMDLINE_DATA, cmdline)?;
    }
    if let Some(initrd) = &source.initrd {
        device.set(key::INITRD_SIZE, size(initrd.len()))?;
        device.set(key::INITRD_DATA, initrd.clone())?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "tables_tests.rs"]
mod tests;
