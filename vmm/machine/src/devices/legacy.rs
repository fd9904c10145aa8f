//! Ports that a PC guest accesses although their device does not exist (spec hypervisor-platform
//! section 11).

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::{PioDevice, Power, PowerRequest};

/// Port 0x64 without a keyboard controller: only the pulse on the reset line works.
pub(crate) struct KeyboardReset(pub Arc<dyn Power>);

impl KeyboardReset {
    /// The I/O port.
    pub(crate) const PORT: u16 = 0x64;
}

impl PioDevice for KeyboardReset {
    fn read(&self, _offset: u16) -> u8 {
        // All ones means that there is no controller. A guest that reboots writes to the port
        // regardless.
        0xFF
    }

    fn write(&self, _offset: u16, value: u8) {
        if value == 0xFE {
            self.0.request(PowerRequest::Reset);
        }
    }
}

/// Port 0x92: bit 0 resets the machine; bit 1 (A20) is readable and writable but has no effect.
pub(crate) struct FastReset {
    power: Arc<dyn Power>,
    value: AtomicU8,
}

impl FastReset {
    /// The I/O port.
    pub(crate) const PORT: u16 = 0x92;

    /// Returns the port with A20 open.
    pub(crate) fn new(power: Arc<dyn Power>) -> FastReset {
        FastReset { power, value: AtomicU8::new(2) }
    }
}

impl PioDevice for FastReset {
    fn read(&self, _offset: u16) -> u8 {
        self.value.load(Ordering::Relaxed)
    }

    fn write(&self, _offset: u16, value: u8) {
        self.value.store(value & 2, Ordering::Relaxed);
        if value & 1 != 0 {
            self.power.request(PowerRequest::Reset);
        }
    }
}

/// The reset control register, a byte at port 0xCF9 among the ports of PCI configuration.
pub(crate) struct ResetControl {
    power: Arc<dyn Power>,
    value: AtomicU8,
}

impl ResetControl {
    const FULL_OR_SYSTEM: u8 = 0x0A;
    const RESET: u8 = 0x04;

    /// Returns the register in its reset state.
    pub(crate) fn new(power: Arc<dyn Power>) -> ResetControl {
        ResetControl { power, value: AtomicU8::new(0) }
    }

    /// Reads the register.
    pub(crate) fn read(&self) -> u8 {
        self.value.load(Ordering::Relaxed)
    }

    /// Writes the register.
    pub(crate) fn write(&self, value: u8) {
        self.value.store(value & Self::FULL_OR_SYSTEM, Ordering::Relaxed);
        if value & Self::RESET != 0 {
            self.power.request(PowerRequest::Reset);
        }
    }
}

/// Ports 0xCF8 to 0xCFF without PCI: the address register does not echo, so no guest scans 256
/// buses. Only the reset control register works.
pub(crate) struct NoPci(pub ResetControl);

impl vm_device::DevicePio for NoPci {
    fn pio_read(&self, _base: vm_device::bus::PioAddress, offset: u16, data: &mut [u8]) {
        data.fill(0xFF);
        if let (1, [byte]) = (offset, data) {
            *byte = self.0.read();
        }
    }

    fn pio_write(&self, _base: vm_device::bus::PioAddress, offset: u16, data: &[u8]) {
        // Only a byte access reaches the reset register: a dword at 0xCF8 is a PCI address.
        if let (1, [value]) = (offset, data) {
            self.0.write(*value);
        }
    }
}

/// Port 0x61 of a machine without KVM's PIT, which would answer there: the refresh bit toggles, the
/// low four bits are writable.
#[derive(Default)]
pub(crate) struct SystemPort(AtomicU8);

impl SystemPort {
    /// The I/O port.
    pub(crate) const PORT: u16 = 0x61;
    const REFRESH: u8 = 0x10;
    const TIMER2: u8 = 0x20;
    const WRITABLE: u8 = 0x0F;
}

impl PioDevice for SystemPort {
    fn read(&self, _offset: u16) -> u8 {
        // Toggling both bits ends guest loops that wait for an edge of refresh or of timer 2.
        self.0.fetch_xor(Self::REFRESH | Self::TIMER2, Ordering::Relaxed)
    }

    fn write(&self, _offset: u16, value: u8) {
        self.0.store(value & Self::WRITABLE, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use vm_device::DevicePio;
    use vm_device::bus::PioAddress;

    use super::*;

    #[derive(Default)]
    struct Requests(Mutex<Vec<PowerRequest>>);

    impl Power for Requests {
        fn request(&self, request: PowerRequest) {
            self.0.lock().unwrap().push(request);
        }
    }

    impl Requests {
        fn count(&self) -> usize {
            self.0.lock().unwrap().len()
        }
    }

    #[test]
    fn test_keyboard_only_fe_resets() {
        let power = Arc::new(Requests::default());
        let keyboard = KeyboardReset(power.clone());
        keyboard.write(0, 0xD1);
        assert_eq!(power.count(), 0);
        keyboard.write(0, 0xFE);
        assert_eq!(power.count(), 1);
        assert_eq!(keyboard.read(0), 0xFF);
    }

    #[test]
    fn test_pci_address_does_not_echo_and_does_not_reset() {
        let power = Arc::new(Requests::default());
        let pci = NoPci(ResetControl::new(power.clone()));
        pci.pio_write(PioAddress(0xCF8), 0, &0x8000_0600_u32.to_le_bytes());
        let mut data = [0; 4];
        pci.pio_read(PioAddress(0xCF8), 0, &mut data);
        assert_eq!(data, [0xFF; 4]);
        assert_eq!(power.count(), 0);
    }

    #[test]
    fn test_cf9_linux_sequence_resets_once() {
        let power = Arc::new(Requests::default());
        let pci = NoPci(ResetControl::new(power.clone()));
        let mut value = [0];
        pci.pio_read(PioAddress(0xCF8), 1, &mut value);
        pci.pio_write(PioAddress(0xCF8), 1, &[value[0] & !0x0E | 2]);
        assert_eq!(power.count(), 0);
        pci.pio_write(PioAddress(0xCF8), 1, &[value[0] & !0x0E | 0x0E]);
        assert_eq!(power.count(), 1);
    }

    #[test]
    fn test_system_port_bits_toggle() {
        let port = SystemPort::default();
        assert_ne!(port.read(0) & 0x30, port.read(0) & 0x30);
    }

    #[test]
    fn test_fast_reset_bit_zero_resets() {
        let power = Arc::new(Requests::default());
        let port = FastReset::new(power.clone());
        port.write(0, 2);
        assert_eq!((power.count(), port.read(0)), (0, 2));
        port.write(0, 3);
        assert_eq!(power.count(), 1);
    }
}
