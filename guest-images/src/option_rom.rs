//! The UEFI driver for VMBus as the image of a PCI option ROM.
//!
//! The driver is built by the distribution's packaged Rust, which is unpacked into the cache: it
//! has the sources of the core libraries, so the target needs no other download, and every machine
//! makes the same image. Source: `docs/spec/firmware-windows.md` section B8.

mod toolchain;

use std::path::PathBuf;

use crate::init_binary::hash_of;
use crate::{Error, cache::Cache};

/// Folders with the driver's sources.
const SOURCES: [&str; 5] = [
    "devices/firmware/uefi-vmbus",
    "devices/storvsc",
    "vmbus/client",
    "vmbus/protocol",
    "vmbus/ring",
];

/// The identity of the function that carries the ROM. It must have this identity, or firmware
/// ignores the ROM. It is that of QEMU's test device without a function of its own, for which no
/// system has a driver, so that the ROM can be tried in QEMU as well.
const VENDOR: u16 = 0x1B36;
const DEVICE: u16 = 0x0005;
/// Class code: a device that does not fit any class.
const CLASS: [u8; 3] = [0x00, 0xFF, 0x00];

/// Returns the path of the option ROM, after building it if the sources have changed.
///
/// # Errors
/// A package cannot be fetched, or the build fails.
pub fn option_rom(cache: &Cache) -> Result<PathBuf, Error> {
    let hash = hash_of(&SOURCES, &["Cargo.lock"])?;
    let path = cache.root().join("firmware").join(format!("uefi-vmbus-{hash}.rom"));
    if path.is_file() {
        return Ok(path);
    }
    let _lock = cache.lock("uefi-vmbus")?;
    // Another process may have built it while this one waited for the lock.
    if !path.is_file() {
        let image = toolchain::build(cache)?;
        cache.write(&path, &rom(&image)?)?;
    }
    Ok(path)
}

/// Returns the option ROM that holds a UEFI driver (PCI Firmware Specification 3.0 chapter 5, UEFI
/// specification section 14.4).
fn rom(image: &[u8]) -> Result<Vec<u8>, Error> {
    /// The unit of sizes.
    const UNIT: usize = 512;
    /// Offsets of the PCI data structure and of the driver.
    const DATA: u16 = 0x1C;
    const DRIVER: u16 = 0x40;
    /// The header's signature, and those for the kind of the image.
    const SIGNATURE: [u8; 2] = [0x55, 0xAA];
    const EFI: u32 = 0x0EF1;
    const BOOT_SERVICE_DRIVER: u16 = 0x0B;
    const X86_64: u16 = 0x8664;
    const DATA_LENGTH: u16 = 0x18;
    const EFI_CODE: u8 = 3;
    const LAST: u8 = 0x80;

    let size = (usize::from(DRIVER) + image.len()).div_ceil(UNIT);
    let units = u16::try_from(size)
        .map_err(|_| Error::Unusable("the UEFI driver is too large for an option ROM".into()))?
        .to_le_bytes();
    let mut rom = Vec::with_capacity(size * UNIT);
    rom.extend(SIGNATURE);
    rom.extend(units);
    rom.extend(EFI.to_le_bytes());
    rom.extend(BOOT_SERVICE_DRIVER.to_le_bytes());
    rom.extend(X86_64.to_le_bytes());
    rom.resize(0x16, 0);
    rom.extend(DRIVER.to_le_bytes());
    rom.extend(DATA.to_le_bytes());
    rom.resize(DATA.into(), 0);
    rom.extend(b"PCIR");
    rom.extend(VENDOR.to_le_bytes());
    rom.extend(DEVICE.to_le_bytes());
    rom.extend([0; 2]);
    rom.extend(DATA_LENGTH.to_le_bytes());
    rom.push(0);
    // The lowest byte first.
    rom.extend(CLASS.iter().rev());
    rom.extend(units);
    rom.extend([0; 2]);
    rom.extend([EFI_CODE, LAST]);
    rom.resize(DRIVER.into(), 0);
    rom.extend(image);
    rom.resize(size * UNIT, 0);
    Ok(rom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_rom_has_header_data_structure_and_driver_where_the_spec_says() {
        let rom = rom(&[0xAB; 1000]).unwrap();
        assert_eq!(rom.len(), 1536);
        assert_eq!(rom[..4], [0x55, 0xAA, 3, 0]);
        assert_eq!(rom[4..0x0C], [0xF1, 0x0E, 0, 0, 0x0B, 0, 0x64, 0x86]);
        assert_eq!(rom[0x16..0x1A], [0x40, 0, 0x1C, 0]);
        assert_eq!(rom[0x1C..0x20], *b"PCIR");
        assert_eq!(rom[0x20..0x24], [0x36, 0x1B, 5, 0]);
        assert_eq!(rom[0x26..0x28], [0x18, 0]);
        assert_eq!(rom[0x29..0x2C], [0, 0xFF, 0]);
        assert_eq!(rom[0x2C..0x2E], [3, 0]);
        assert_eq!(rom[0x30..0x32], [3, 0x80]);
        assert_eq!(rom[0x40..0x40 + 1000], [0xAB; 1000]);
        assert!(rom[0x40 + 1000..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn test_rom_of_a_driver_beyond_the_size_field_is_refused() {
        assert!(rom(&vec![0; 512 * 65_535 - 0x40]).is_ok());
        let error = rom(&vec![0; 512 * 65_535 - 0x3F]).unwrap_err().to_string();
        assert!(error.contains("too large"), "{error}");
    }

    #[test]
    #[ignore = "builds the driver twice, with packages from the network"]
    fn test_driver_built_twice_is_the_same() {
        let cache = Cache::project();
        let first = toolchain::build(&cache).unwrap();
        std::fs::remove_dir_all(toolchain::target()).unwrap();
        assert!(first == toolchain::build(&cache).unwrap(), "two builds differ");
    }
}
