//! The device that tells a guest of its generation id (spec hypervisor-platform section 9.2).

use acpi_tables::Aml;
use acpi_tables::aml::{Device, Method, Name, Notify, Package, Path, Scope};

use super::dsdt::STATUS_OK;
use crate::generation::EVENT;
use crate::memory::AddressRange;

/// "The generation id has changed", the only notification of the device.
const CHANGED: u8 = 0x80;

/// Writes the device, whose `ADDR` is the address of the id.
pub(super) fn device(code: &mut Vec<u8>, page: AddressRange) {
    let (low, high) = (page.start as u32, (page.start >> 32) as u32);
    Device::new(
        "GENC".into(),
        vec![
            // Vendors have ids of their own; Windows and Linux look for the compatible ones.
            &Name::new("_HID".into(), &"SYNT0001"),
            &Name::new("_CID".into(), &Package::new(vec![&"VM_Gen_Counter", &"VMGENCTR"])),
            &Name::new("_DDN".into(), &"VM_Gen_Counter"),
            &Name::new("_STA".into(), &STATUS_OK),
            &Name::new("ADDR".into(), &Package::new(vec![&low, &high])),
        ],
    )
    .to_aml_bytes(code);
}

/// Writes the handler of the event, which is edge-triggered.
pub(super) fn event(code: &mut Vec<u8>) {
    let name = format!("_E{EVENT:02X}");
    let device = Path::new("\\_SB_.GENC");
    let notify = Notify::new(&device, &CHANGED);
    let handler = Method::new(Path::new(&name), 0, false, vec![&notify]);
    Scope::new("\\_GPE".into(), vec![&handler]).to_aml_bytes(code);
}
