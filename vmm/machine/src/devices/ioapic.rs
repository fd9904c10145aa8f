//! The IOAPIC of a machine with a split irqchip: 24 pins, whose interrupts are sent as MSIs
//! (82093AA data sheet).

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::kvm_msi;
use kvm_ioctls::VmFd;
use tracing::debug;
use vm_device::DeviceMmio;
use vm_device::bus::{MmioAddress, MmioAddressOffset};

use super::InterruptLine;
use crate::irq::{IOAPIC_PINS, Msi, Routes};
use crate::memory::LAPIC_BASE;

/// Size of the MMIO range in bytes.
pub(crate) const SIZE: u64 = 0x1000;

const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;
const ID: u8 = 0;
const VERSION: u8 = 1;
const ARBITRATION: u8 = 2;
const REDIRECTION: u8 = 0x10;
/// The version without the EOI register: EOIs come as broadcasts from the local APICs.
const VERSION_82093AA: u32 = 0x11;

const DELIVERY_STATUS: u64 = 1 << 12;
const REMOTE_IRR: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
const READ_ONLY: u64 = DELIVERY_STATUS | REMOTE_IRR;

/// The IOAPIC.
pub(crate) struct Ioapic {
    sink: Box<dyn MsiSink>,
    registers: Mutex<Registers>,
}

/// The receiver of MSIs: KVM, or a test.
trait MsiSink: Send + Sync {
    /// Sends an MSI.
    fn send(&self, msi: Msi) -> io::Result<()>;
    /// Sets or removes the route of a level-triggered pin. KVM reports EOIs only of routed vectors.
    fn route(&self, pin: usize, msi: Option<Msi>) -> io::Result<()>;
}

struct KvmSink {
    vm: Arc<VmFd>,
    routes: Arc<Routes>,
}

impl MsiSink for KvmSink {
    fn send(&self, msi: Msi) -> io::Result<()> {
        let msi = kvm_msi { address_lo: msi.address, data: msi.data, ..Default::default() };
        self.vm.signal_msi(msi)?;
        Ok(())
    }

    fn route(&self, pin: usize, msi: Option<Msi>) -> io::Result<()> {
        self.routes.set_pin(pin, msi)
    }
}

struct Registers {
    select: u8,
    id: u32,
    pins: [PinState; IOAPIC_PINS as usize],
}

#[derive(Clone, Copy)]
struct PinState {
    entry: u64,
    high: bool,
    routed: Option<Msi>,
}

impl PinState {
    const RESET: PinState = PinState { entry: MASKED, high: false, routed: None };

    fn msi(&self) -> Msi {
        let entry = self.entry;
        let destination = (entry >> 56) as u32;
        let logical = (entry >> 11 & 1) as u32;
        let mut data = (entry & 0x7FF) as u32;
        if entry & LEVEL != 0 {
            // Level-triggered, asserted.
            data |= 1 << 15 | 1 << 14;
        }
        Msi { address: LAPIC_BASE as u32 | destination << 12 | logical << 2, data }
    }
}

impl Ioapic {
    /// Returns an IOAPIC with all pins masked and low.
    pub(crate) fn new(vm: Arc<VmFd>, routes: Arc<Routes>) -> Ioapic {
        Ioapic::with_sink(Box::new(KvmSink { vm, routes }))
    }

    fn with_sink(sink: Box<dyn MsiSink>) -> Ioapic {
        let registers =
            Registers { select: 0, id: 0, pins: [PinState::RESET; IOAPIC_PINS as usize] };
        Ioapic { sink, registers: Mutex::new(registers) }
    }

    /// Restores the power-on state. The levels of the lines stay, because they belong to the
    /// devices.
    pub(crate) fn reset(&self) {
        let mut registers = self.lock();
        registers.select = 0;
        registers.id = 0;
        for pin in 0..registers.pins.len() {
            registers.pins[pin].entry = MASKED;
            self.follow(&mut registers, pin);
        }
    }

    /// Handles the EOI of `vector` by a processor (KVM_EXIT_IOAPIC_EOI).
    pub(crate) fn end_of_interrupt(&self, vector: u8) {
        let mut registers = self.lock();
        for pin in &mut registers.pins {
            if pin.entry & 0xFF == u64::from(vector) && pin.entry & LEVEL != 0 {
                pin.entry &= !REMOTE_IRR;
                self.evaluate(pin, false);
            }
        }
    }

    fn set_pin(&self, pin: u32, high: bool) {
        let mut registers = self.lock();
        if let Some(pin) = registers.pins.get_mut(pin as usize) {
            let rising = high && !pin.high;
            pin.high = high;
            self.evaluate(pin, rising);
        }
    }

    /// Sends the pin's interrupt if one is due. An edge on a masked pin is lost, as the data sheet
    /// requires (section 3.2.4, interrupt mask); KVM's own IOAPIC does not deliver it either when
    /// the pin is unmasked.
    fn evaluate(&self, pin: &mut PinState, rising: bool) {
        if pin.entry & MASKED != 0 {
            return;
        }
        let due =
            if pin.entry & LEVEL != 0 { pin.high && pin.entry & REMOTE_IRR == 0 } else { rising };
        if due {
            if pin.entry & LEVEL != 0 {
                pin.entry |= REMOTE_IRR;
            }
            if let Err(error) = self.sink.send(pin.msi()) {
                debug!("IOAPIC: interrupt not delivered: {error}");
            }
        }
    }

    fn read(&self) -> u32 {
        let registers = self.lock();
        match registers.select {
            ID | ARBITRATION => registers.id,
            VERSION => VERSION_82093AA | (IOAPIC_PINS - 1) << 16,
            select => {
                let entry = select
                    .checked_sub(REDIRECTION)
                    .and_then(|at| registers.pins.get(usize::from(at / 2)));
                entry.map_or(u32::MAX, |pin| (pin.entry >> (32 * (select & 1))) as u32)
            }
        }
    }

    fn write(&self, value: u32) {
        let mut registers = self.lock();
        let select = registers.select;
        if select == ID {
            registers.id = value & 0x0F00_0000;
            return;
        }
        let Some(pin) = select.checked_sub(REDIRECTION).map(|at| usize::from(at / 2)) else {
            return;
        };
        let Some(state) = registers.pins.get_mut(pin) else { return };
        let shift = 32 * (select & 1);
        let writable = u64::from(u32::MAX) << shift & !READ_ONLY;
        state.entry = state.entry & !writable | u64::from(value) << shift & writable;
        if state.entry & LEVEL == 0 {
            state.entry &= !REMOTE_IRR;
        }
        self.follow(&mut registers, pin);
        // Unmasking delivers a level that was raised while the pin was masked.
        if let Some(state) = registers.pins.get_mut(pin) {
            self.evaluate(state, false);
        }
    }

    /// Updates KVM's route of a level-triggered pin after its entry has changed.
    fn follow(&self, registers: &mut Registers, pin: usize) {
        let Some(state) = registers.pins.get_mut(pin) else { return };
        let wanted = (state.entry & (MASKED | LEVEL) == LEVEL).then(|| state.msi());
        if state.routed != wanted && self.sink.route(pin, wanted).is_ok() {
            state.routed = wanted;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Registers> {
        self.registers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DeviceMmio for Ioapic {
    fn mmio_read(&self, _base: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        let value = match offset {
            SELECT => u32::from(self.lock().select),
            WINDOW => self.read(),
            _ => u32::MAX,
        };
        for (byte, value) in data.iter_mut().zip(value.to_le_bytes().into_iter().chain([0; 4])) {
            *byte = value;
        }
    }

    fn mmio_write(&self, _base: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        let mut bytes = [0; 4];
        for (byte, value) in bytes.iter_mut().zip(data) {
            *byte = *value;
        }
        match offset {
            SELECT => self.lock().select = bytes[0],
            WINDOW => self.write(u32::from_le_bytes(bytes)),
            _ => {}
        }
    }
}

/// A pin of an IOAPIC.
pub(crate) struct Pin {
    ioapic: Arc<Ioapic>,
    pin: u32,
}

impl Pin {
    /// Returns pin `pin`. A pin that does not exist has no effect.
    pub(crate) fn new(ioapic: &Arc<Ioapic>, pin: u32) -> Pin {
        Pin { ioapic: Arc::clone(ioapic), pin }
    }
}

impl InterruptLine for Pin {
    fn pulse(&self) -> io::Result<()> {
        self.ioapic.set_pin(self.pin, true);
        self.ioapic.set_pin(self.pin, false);
        Ok(())
    }

    fn set_level(&self, high: bool) -> io::Result<()> {
        self.ioapic.set_pin(self.pin, high);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Recorder {
        sent: Mutex<Vec<u32>>,
        routed: Mutex<Vec<(usize, bool)>>,
    }

    impl MsiSink for Arc<Recorder> {
        fn send(&self, msi: Msi) -> io::Result<()> {
            self.sent.lock().unwrap().push(msi.data);
            Ok(())
        }

        fn route(&self, pin: usize, msi: Option<Msi>) -> io::Result<()> {
            self.routed.lock().unwrap().push((pin, msi.is_some()));
            Ok(())
        }
    }

    fn ioapic() -> (Arc<Ioapic>, Arc<Recorder>) {
        let recorder = Arc::new(Recorder::default());
        (Arc::new(Ioapic::with_sink(Box::new(Arc::clone(&recorder)))), recorder)
    }

    fn write(ioapic: &Ioapic, register: u8, value: u32) {
        ioapic.mmio_write(MmioAddress(0), SELECT, &u32::from(register).to_le_bytes());
        ioapic.mmio_write(MmioAddress(0), WINDOW, &value.to_le_bytes());
    }

    fn read(ioapic: &Ioapic, register: u8) -> u32 {
        ioapic.mmio_write(MmioAddress(0), SELECT, &u32::from(register).to_le_bytes());
        let mut bytes = [0; 4];
        ioapic.mmio_read(MmioAddress(0), WINDOW, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    #[test]
    fn test_edge_pin_sends_once_per_pulse_and_not_when_masked() {
        let (ioapic, recorder) = ioapic();
        let pin = Pin::new(&ioapic, 4);
        pin.pulse().unwrap();
        write(&ioapic, 0x18, 0x34);
        pin.pulse().unwrap();
        pin.pulse().unwrap();
        assert_eq!(*recorder.sent.lock().unwrap(), [0x34, 0x34]);
        assert!(recorder.routed.lock().unwrap().is_empty(), "edges need no route");
    }

    #[test]
    fn test_edge_on_a_masked_pin_is_lost_and_the_next_one_is_sent() {
        let (ioapic, recorder) = ioapic();
        let pin = Pin::new(&ioapic, 4);
        write(&ioapic, 0x18, MASKED as u32 | 0x34);
        pin.set_level(true).unwrap();
        write(&ioapic, 0x18, 0x34);
        assert!(recorder.sent.lock().unwrap().is_empty(), "the line was high before");
        pin.set_level(false).unwrap();
        pin.set_level(true).unwrap();
        assert_eq!(*recorder.sent.lock().unwrap(), [0x34]);
    }

    #[test]
    fn test_level_pin_sends_again_only_after_eoi() {
        let (ioapic, recorder) = ioapic();
        let pin = Pin::new(&ioapic, 9);
        pin.set_level(true).unwrap();
        write(&ioapic, 0x22, LEVEL as u32 | 0x39);
        assert_eq!(*recorder.sent.lock().unwrap(), [0xC039]);
        assert_ne!(read(&ioapic, 0x22) & REMOTE_IRR as u32, 0);
        pin.set_level(true).unwrap();
        assert_eq!(recorder.sent.lock().unwrap().len(), 1);
        ioapic.end_of_interrupt(0x39);
        assert_eq!(recorder.sent.lock().unwrap().len(), 2);
        pin.set_level(false).unwrap();
        ioapic.end_of_interrupt(0x39);
        assert_eq!(recorder.sent.lock().unwrap().len(), 2);
        assert_eq!(*recorder.routed.lock().unwrap(), [(9, true)]);
    }

    #[test]
    fn test_registers_version_mask_and_read_only_bits() {
        let (ioapic, _) = ioapic();
        assert_eq!(read(&ioapic, VERSION), 0x0017_0011);
        assert_eq!(read(&ioapic, 0x3E), MASKED as u32);
        write(&ioapic, 0x3E, u32::MAX);
        assert_eq!(read(&ioapic, 0x3E), !(READ_ONLY as u32));
        write(&ioapic, 0x3F, 0x0100_0000);
        assert_eq!(read(&ioapic, 0x3F), 0x0100_0000);
        ioapic.reset();
        assert_eq!(read(&ioapic, 0x3E), MASKED as u32);
    }

    #[test]
    fn test_any_register_any_value_survives() {
        let (ioapic, _) = ioapic();
        for register in 0..=255 {
            for value in [0, 1, 0x8000, u32::MAX] {
                write(&ioapic, register, value);
                read(&ioapic, register);
            }
        }
    }
}
