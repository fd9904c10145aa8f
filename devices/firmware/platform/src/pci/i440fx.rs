//! The functions without which OVMF does not start on an i440FX: host bridge, ISA bridge and power
//! management (spec firmware-windows sections B3.3 and B3.4).

use super::function::{Function, Identity};

const INTEL: u16 = 0x8086;
/// 00.0: the host bridge, by whose device id firmware recognizes the machine.
const HOST_BRIDGE: (u8, u16, u32) = (0x00, 0x1237, 0x06_0000);
/// 01.0: the ISA bridge, below which firmware finds the serial ports.
const ISA_BRIDGE: (u8, u16, u32) = (0x08, 0x7000, 0x06_0100);
/// 01.3: power management.
const POWER_MANAGEMENT: (u8, u16, u32) = (0x0B, 0x7113, 0x06_8000);

const MULTIFUNCTION: u8 = 0x80;
/// Programmable attribute map of the BIOS area. The registers keep their value, and have no effect:
/// the area is RAM.
const PAM: u8 = 0x59;
const PAM_BYTES: usize = 7;
/// Routing of PCI interrupts. The registers keep their value, and have no effect: no device has an
/// interrupt.
const PIRQ: u8 = 0x60;
const PIRQ_OFF: u8 = 0x80;
/// Base of the power management ports; bit 0 reads as 1.
const PM_BASE: u8 = 0x40;
/// Bit 0: the power management ports are enabled.
const PM_ENABLE: u8 = 0x80;

/// Returns the functions with their device and function numbers.
pub(super) fn functions(pm_base: u16) -> [(u8, Function); 3] {
    let function = |(devfn, device, class): (u8, u16, u32), header| {
        (devfn, Function::new(Identity { vendor: INTEL, device, class, header }))
    };
    let (host, mut host_bridge) = function(HOST_BRIDGE, 0);
    host_bridge.make_writable(PAM, &[0xFF; PAM_BYTES]);
    let (isa, mut isa_bridge) = function(ISA_BRIDGE, MULTIFUNCTION);
    isa_bridge.preset(PIRQ, &[PIRQ_OFF; 4]);
    isa_bridge.make_writable(PIRQ, &[0xFF; 4]);
    let (pm, mut power) = function(POWER_MANAGEMENT, 0);
    power.preset(PM_BASE, &u32::from(pm_base | 1).to_le_bytes());
    power.preset(PM_ENABLE, &[1]);
    [(host, host_bridge), (isa, isa_bridge), (pm, power)]
}
