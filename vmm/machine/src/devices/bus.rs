//! The I/O port and MMIO buses. Reads of unclaimed addresses return all ones; writes to them are
//! dropped.

use std::sync::Arc;

use vm_device::bus::{
    MmioAddress, MmioAddressOffset, MmioRange, PioAddress, PioAddressOffset, PioRange,
};
use vm_device::device_manager::{IoManager, MmioManager, PioManager};
use vm_device::{DeviceMmio, DevicePio};

/// The devices, by address.
#[derive(Default)]
pub(crate) struct Buses {
    devices: IoManager,
}

/// A device of byte-wide registers at consecutive ports, as nearly all legacy devices are. A wider
/// access arrives as one call per byte, lowest port first, as on an 8-bit bus.
pub(crate) trait PioDevice: Send + Sync {
    /// Reads the register at `offset` from the device's first port.
    fn read(&self, offset: u16) -> u8;
    /// Writes the register at `offset` from the device's first port.
    fn write(&self, offset: u16, value: u8);
}

struct Bytewise<D>(Arc<D>);

impl<D: PioDevice> DevicePio for Bytewise<D> {
    fn pio_read(&self, _base: PioAddress, offset: PioAddressOffset, data: &mut [u8]) {
        for (offset, byte) in (offset..).zip(data) {
            *byte = self.0.read(offset);
        }
    }

    fn pio_write(&self, _base: PioAddress, offset: PioAddressOffset, data: &[u8]) {
        for (offset, byte) in (offset..).zip(data) {
            self.0.write(offset, *byte);
        }
    }
}

impl Buses {
    /// Maps a device of byte-wide registers to `ports` consecutive ports from `port`.
    ///
    /// # Errors
    /// The ports overlap another device's.
    pub(crate) fn add_ports<D: PioDevice + 'static>(
        &mut self,
        port: u16,
        ports: u16,
        device: &Arc<D>,
    ) -> Result<(), vm_device::bus::Error> {
        let range = PioRange::new(PioAddress(port), ports)?;
        self.devices.register_pio(range, Arc::new(Bytewise(Arc::clone(device))))
    }

    /// Maps a device that receives accesses in their full width to `ports` consecutive ports from
    /// `port`.
    ///
    /// # Errors
    /// The ports overlap another device's.
    pub(crate) fn add_wide_ports(
        &mut self,
        port: u16,
        ports: u16,
        device: Arc<dyn DevicePio + Send + Sync>,
    ) -> Result<(), vm_device::bus::Error> {
        self.devices.register_pio(PioRange::new(PioAddress(port), ports)?, device)
    }

    /// Maps a device to `len` bytes of guest physical memory from `address`.
    ///
    /// # Errors
    /// The range overlaps another device's.
    pub(crate) fn add_mmio(
        &mut self,
        address: u64,
        len: u64,
        device: Arc<dyn DeviceMmio + Send + Sync>,
    ) -> Result<(), vm_device::bus::Error> {
        self.devices
            .register_mmio(MmioRange::new(MmioAddress(address), len as MmioAddressOffset)?, device)
    }

    /// Performs one IN instruction. The length of `data` is the access's width.
    pub(crate) fn read_port(&self, port: u16, data: &mut [u8]) {
        if self.devices.pio_read(PioAddress(port), data).is_err() {
            data.fill(0xFF);
        }
    }

    /// Performs one OUT instruction. The length of `data` is the access's width.
    pub(crate) fn write_port(&self, port: u16, data: &[u8]) {
        // An unclaimed port drops the write, as on a real bus.
        let _ = self.devices.pio_write(PioAddress(port), data);
    }

    /// Performs one load from memory that is not RAM.
    pub(crate) fn read_mmio(&self, address: u64, data: &mut [u8]) {
        if self.devices.mmio_read(MmioAddress(address), data).is_err() {
            data.fill(0xFF);
        }
    }

    /// Performs one store to memory that is not RAM.
    pub(crate) fn write_mmio(&self, address: u64, data: &[u8]) {
        let _ = self.devices.mmio_write(MmioAddress(address), data);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Registers(Mutex<[u8; 4]>);

    impl PioDevice for Registers {
        fn read(&self, offset: u16) -> u8 {
            self.0.lock().unwrap()[usize::from(offset)]
        }

        fn write(&self, offset: u16, value: u8) {
            self.0.lock().unwrap()[usize::from(offset)] = value;
        }
    }

    #[test]
    fn test_read_unclaimed_every_port_and_width_is_all_ones() {
        let buses = Buses::default();
        for port in 0..=u16::MAX {
            for width in [1, 2, 4] {
                let mut data = [0; 4];
                buses.read_port(port, &mut data[..width]);
                assert!(data[..width].iter().all(|byte| *byte == 0xFF));
                buses.write_port(port, &data[..width]);
            }
        }
        let mut data = [0; 8];
        buses.read_mmio(u64::MAX - 3, &mut data);
        assert_eq!(data, [0xFF; 8]);
        buses.write_mmio(u64::MAX - 3, &data);
    }

    #[test]
    fn test_write_wide_reaches_consecutive_registers() {
        let mut buses = Buses::default();
        let device = Arc::new(Registers::default());
        buses.add_ports(0x100, 4, &device).unwrap();
        buses.write_port(0x101, &[1, 2]);
        assert_eq!(*device.0.lock().unwrap(), [0, 1, 2, 0]);
        let mut data = [0; 4];
        buses.read_port(0x100, &mut data);
        assert_eq!(data, [0, 1, 2, 0]);
    }

    #[test]
    fn test_access_over_the_end_touches_nothing() {
        let mut buses = Buses::default();
        let device = Arc::new(Registers::default());
        buses.add_ports(0x100, 4, &device).unwrap();
        buses.write_port(0x103, &[9, 9]);
        assert_eq!(*device.0.lock().unwrap(), [0; 4]);
        let mut data = [0; 2];
        buses.read_port(0x103, &mut data);
        assert_eq!(data, [0xFF; 2]);
    }
}
