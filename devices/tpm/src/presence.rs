//! The page of the physical presence interface (firmware-windows section D7.3): memory that a
//! system's ACPI methods and the firmware of the next start share.

use std::sync::{Mutex, PoisonError};

use vm_device::DeviceMmio;
use vm_device::bus::{MmioAddress, MmioAddressOffset};

/// Base address of the page.
pub const PRESENCE_BASE: u32 = 0xFED4_5000;
/// Bytes of the page.
pub const PRESENCE_SIZE: usize = 0x1000;

/// The page. It keeps its content at a reset of the machine, as a request is for the start after
/// that, and is zero in a new machine.
pub struct PresencePage(Mutex<Box<[u8; PRESENCE_SIZE]>>);

impl PresencePage {
    /// Returns a page of zeros.
    #[must_use]
    pub fn new() -> PresencePage {
        PresencePage(Mutex::new(Box::new([0; PRESENCE_SIZE])))
    }

    /// Runs `copy` with the bytes from `offset`, at most `len`.
    fn with(&self, offset: MmioAddressOffset, len: usize, copy: impl FnOnce(&mut [u8])) {
        let mut page = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = usize::try_from(offset).map_or(PRESENCE_SIZE, |start| start.min(PRESENCE_SIZE));
        let end = start.saturating_add(len).min(PRESENCE_SIZE);
        copy(&mut page[start..end]);
    }
}

impl Default for PresencePage {
    fn default() -> PresencePage {
        PresencePage::new()
    }
}

impl std::fmt::Debug for PresencePage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PresencePage").finish_non_exhaustive()
    }
}

impl DeviceMmio for PresencePage {
    fn mmio_read(&self, _base: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        data.fill(0xFF);
        self.with(offset, data.len(), |bytes| data[..bytes.len()].copy_from_slice(bytes));
    }

    fn mmio_write(&self, _base: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        self.with(offset, data.len(), |bytes| bytes.copy_from_slice(&data[..bytes.len()]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_page_keeps_bytes_and_accesses_beyond_its_end_reach_nothing() {
        let (page, base) = (PresencePage::new(), MmioAddress(PRESENCE_BASE.into()));
        page.mmio_write(base, 0x109, &5_u32.to_le_bytes());
        page.mmio_write(base, 0xFFE, &[1, 2, 3, 4]);
        page.mmio_write(base, u64::MAX, &[9]);
        let read = |offset| {
            let mut data = [0; 4];
            page.mmio_read(base, offset, &mut data);
            data
        };
        assert_eq!((read(0x109), read(0x10A)), ([5, 0, 0, 0], [0; 4]));
        assert_eq!(read(0xFFE), [1, 2, 0xFF, 0xFF]);
        assert_eq!((read(0x1000), read(u64::MAX)), ([0xFF; 4], [0xFF; 4]));
    }
}
