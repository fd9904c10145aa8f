//! Ports 0xCF8 to 0xCFF of a machine with a PCI bus: configuration access, and the reset control
//! register in between.

use std::sync::Arc;

use vm_device::DevicePio;
use vm_device::bus::PioAddress;

use super::{Power, PowerRequest, ResetControl};
use crate::firmware::Pci;

/// First port of configuration access.
pub(crate) const CONFIG_PORT: u16 = 0xCF8;
/// Number of ports.
pub(crate) const CONFIG_PORTS: u16 = 8;

/// The ports.
pub(crate) struct PciPorts {
    /// The bus.
    pub(crate) bus: Arc<Pci>,
    /// The register at 0xCF9.
    pub(crate) reset: ResetControl,
    /// The receiver of the firmware's report that it booted no system.
    pub(crate) power: Arc<dyn Power>,
}

impl DevicePio for PciPorts {
    fn pio_read(&self, _base: PioAddress, offset: u16, data: &mut [u8]) {
        match (offset, data) {
            (1, [byte]) => *byte = self.reset.read(),
            (offset, data) => self.bus.read(offset, data),
        }
    }

    fn pio_write(&self, _base: PioAddress, offset: u16, data: &[u8]) {
        match (offset, data) {
            (1, [value]) => self.reset.write(*value),
            (offset, data) => {
                if let Some(failure) = self.bus.write(offset, data) {
                    self.power.request(PowerRequest::BootFailure(failure));
                }
            }
        }
    }
}
