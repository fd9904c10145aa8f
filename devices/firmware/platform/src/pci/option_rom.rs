//! A device whose only resource is an expansion ROM, from which firmware loads a driver (spec
//! firmware-windows section B8; PCI Firmware Specification 3.0 chapter 5). Its configuration space
//! has the boot status register.

use std::sync::Arc;

use super::boot_status;
use super::function::{Function, Identity, offset};

/// Device 2, function 0.
pub(super) const DEVFN: u8 = 0x10;

/// The largest image, in bytes: what a ROM BAR can describe.
pub const MAX_OPTION_ROM_BYTES: usize = 16 << 20;

const MEMORY_SPACE: u8 = 2;
const ROM_ENABLE: u32 = 1;
/// A ROM takes whole pages, so that it can be mapped into the guest.
const MIN_WINDOW: usize = 4096;

/// The image of an option ROM.
#[derive(Clone, Debug)]
pub struct OptionRom {
    bytes: Arc<[u8]>,
    vendor: u16,
    device: u16,
    class: u32,
}

/// An image that is not an option ROM.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionRomError {
    /// The first two bytes are not 55h AAh.
    #[error("is not an option ROM (it does not begin with 55 AA)")]
    Signature,
    /// The PCI data structure is missing or outside the image.
    #[error("is not an option ROM (it has no PCI data structure)")]
    DataStructure,
    /// The image is empty or too large.
    #[error("has {0} bytes; an option ROM has 512 bytes to 16 MiB")]
    Size(usize),
}

impl OptionRom {
    /// Checks the image. Its device gets the identity in the image's PCI data structure, which is
    /// the identity that firmware requires.
    ///
    /// # Errors
    /// [`OptionRomError`]: the image has no header that firmware would accept.
    pub fn new(bytes: Vec<u8>) -> Result<OptionRom, OptionRomError> {
        if !(512..=MAX_OPTION_ROM_BYTES).contains(&bytes.len()) {
            return Err(OptionRomError::Size(bytes.len()));
        }
        if bytes[..2] != [0x55, 0xAA] {
            return Err(OptionRomError::Signature);
        }
        let start = usize::from(u16::from_le_bytes([bytes[0x18], bytes[0x19]]));
        let data = bytes.get(start..start + 0x18).ok_or(OptionRomError::DataStructure)?;
        if data[..4] != *b"PCIR" {
            return Err(OptionRomError::DataStructure);
        }
        let word = |at: usize| u16::from_le_bytes([data[at], data[at + 1]]);
        let (vendor, device) = (word(4), word(6));
        let class = u32::from_le_bytes([data[0xD], data[0xE], data[0xF], 0]);
        Ok(OptionRom { vendor, device, class, bytes: bytes.into() })
    }

    /// Returns the image.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the bytes of address space that the ROM takes: a power of two, at least 4,096.
    #[must_use]
    pub fn window(&self) -> u64 {
        self.bytes.len().next_power_of_two().max(MIN_WINDOW) as u64
    }

    /// Reads the ROM from `start`. Bytes behind the image are left as they are.
    pub(super) fn read(&self, start: u64, data: &mut [u8]) {
        let Ok(start) = usize::try_from(start) else { return };
        let image = self.bytes.get(start..).unwrap_or(&[]);
        let len = image.len().min(data.len());
        data[..len].copy_from_slice(&image[..len]);
    }

    pub(super) fn function(&self) -> Function {
        let (vendor, device, class) = (self.vendor, self.device, self.class);
        let mut function = Function::new(Identity { vendor, device, class, header: 0 });
        let address_bits = !(self.window() as u32 - 1);
        function.make_writable(offset::ROM, &(address_bits | ROM_ENABLE).to_le_bytes());
        boot_status::add_to(&mut function);
        function
    }
}

/// Returns the address at which `function` decodes its ROM. The guest must have enabled both memory
/// space and the ROM.
pub(super) fn decoded_at(function: &Function) -> Option<u64> {
    let bar = function.read_u32(offset::ROM);
    let decodes = function.read(offset::COMMAND) & MEMORY_SPACE != 0 && bar & ROM_ENABLE != 0;
    decodes.then_some(u64::from(bar & !0x7FF))
}
