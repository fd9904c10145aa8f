//! The boot status register, by which the driver tells SynthVM that the firmware found no system:
//! a byte in a vendor-specific capability of the PCI function that carries the option ROM
//! (docs/firmware.md).

/// A value of the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BootStatus {
    /// No boot option could be started.
    NoOption = 1,
    /// The firmware starts its shell, because nothing else can be started.
    Shell = 2,
    /// A system has taken over. The register ignores all writes until the next reset.
    Closed = 0xFF,
}

/// Offsets of PCI configuration space: the status register's low byte, and the first capability.
const STATUS: u8 = 0x06;
const FIRST_CAPABILITY: u8 = 0x34;
/// Bit of the status register: there are capabilities.
const HAS_CAPABILITIES: u8 = 1 << 4;

/// Id of a vendor-specific capability. Behind it are the next capability, the length, a byte 0, the
/// signature and the register.
const VENDOR_SPECIFIC: u8 = 9;
const LENGTH: u8 = 12;
const SIGNATURE: [u8; 4] = *b"SVbs";
const SIGNATURE_AT: u8 = 4;
const REGISTER_AT: u8 = 8;

/// Bounds the walk through a list that may have a loop.
const MAX_CAPABILITIES: usize = 48;

/// Returns the offset of the register in the configuration space that `read` reads bytes of. `None`
/// if the function has none, as in a machine of another VMM.
#[must_use]
pub fn find(mut read: impl FnMut(u8) -> u8) -> Option<u8> {
    if read(STATUS) & HAS_CAPABILITIES == 0 {
        return None;
    }
    let mut at = read(FIRST_CAPABILITY) & !3;
    for _ in 0..MAX_CAPABILITIES {
        // The header of configuration space has no capabilities, and the register must fit.
        if !(0x40..=0xFF - LENGTH).contains(&at) {
            return None;
        }
        let signature = |lane: u8| SIGNATURE_AT + lane;
        if read(at) == VENDOR_SPECIFIC
            && read(at + 2) >= LENGTH
            && (0..4).all(|lane| read(at + signature(lane)) == SIGNATURE[usize::from(lane)])
        {
            return Some(at + REGISTER_AT);
        }
        at = read(at + 1) & !3;
    }
    None
}

#[cfg(test)]
mod tests {
    use synthvm_firmware::{BootFailure, OptionRom, PciBus};

    use super::*;

    /// Device 2, function 0, where SynthVM places the option ROM.
    const ADDRESS: u32 = 0x8000_1000;

    fn bus() -> PciBus {
        let mut rom = vec![0; 512];
        rom[..2].copy_from_slice(&[0x55, 0xAA]);
        rom[0x18] = 0x1C;
        rom[0x1C..0x20].copy_from_slice(b"PCIR");
        PciBus::i440fx(0x400, Some(OptionRom::new(rom).unwrap()))
    }

    fn read(bus: &mut PciBus, register: u8) -> u8 {
        bus.set_address(ADDRESS | u32::from(register & !3));
        let mut byte = [0];
        bus.read_data(register & 3, &mut byte);
        byte[0]
    }

    fn write(bus: &mut PciBus, register: u8, status: BootStatus) {
        bus.set_address(ADDRESS | u32::from(register & !3));
        bus.write_data(register & 3, &[status as u8]);
    }

    #[test]
    fn test_register_of_the_device_is_found_and_takes_each_status() {
        for (status, failure) in [
            (BootStatus::NoOption, Some(BootFailure::NoOption)),
            (BootStatus::Shell, Some(BootFailure::Shell)),
            (BootStatus::Closed, None),
        ] {
            let mut bus = bus();
            let register = find(|register| read(&mut bus, register)).unwrap();
            write(&mut bus, register, status);
            assert_eq!(bus.take_boot_failure(), failure);
        }
    }

    #[test]
    fn test_function_without_the_register_or_with_a_loop_of_capabilities_has_none() {
        assert_eq!(find(|_| 0), None);
        assert_eq!(find(|_| 0xFF), None);
        let looped = |register| match register {
            STATUS => HAS_CAPABILITIES,
            FIRST_CAPABILITY | 0x41 => 0x40,
            0x40 => VENDOR_SPECIFIC,
            _ => 0,
        };
        assert_eq!(find(looped), None);
    }
}
