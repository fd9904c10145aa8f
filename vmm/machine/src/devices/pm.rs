//! ACPI power management registers (ACPI specification chapter 4.8; spec hypervisor-platform
//! section 9.3 (a)).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::{InterruptLine, PioDevice, Power, PowerRequest};

/// First port.
pub(crate) const BASE: u16 = 0x400;
/// Number of ports, including the reset register.
pub(crate) const PORTS: u16 = 0x34;
/// PM1 event block: status, enable (16 bits each).
pub(crate) const PM1_EVENT: u16 = BASE;
/// PM1 control (16 bits).
pub(crate) const PM1_CONTROL: u16 = BASE + 4;
/// PM timer (32 bits, 3.579545 MHz).
pub(crate) const TIMER: u16 = BASE + 8;
/// General purpose events: status, enable (16 bits each).
pub(crate) const GPE0: u16 = BASE + 0xC;
/// Bytes of the GPE0 block.
pub(crate) const GPE0_LEN: u8 = 4;
/// Reset register.
pub(crate) const RESET: u16 = BASE + 0x33;
/// The value that resets the machine when written to [`RESET`].
pub(crate) const RESET_VALUE: u8 = 1;
/// The system control interrupt: level-triggered, active high.
pub(crate) const SCI: u16 = 9;

const TIMER_HZ: u128 = 3_579_545;
/// The one fixed event that is supported, the power button: timer carry is never raised.
const POWER_BUTTON: u16 = 1 << 8;
const SCI_ENABLE: u16 = 1;
const SLEEP_ENABLE: u16 = 1 << 13;
const SLEEP_TYPE_SHIFT: u16 = 10;
const SLEEP_TYPE_MASK: u16 = 7;
/// SLP_TYP of `\_S5` in the DSDT.
const SLEEP_TYPE_OFF: u16 = 0;
/// SLP_TYP of `\_S4` in the DSDT of a machine that offers hibernation. The guest has saved its
/// memory.
const SLEEP_TYPE_HIBERNATE: u16 = 1;

/// The register block.
pub(crate) struct PmRegisters {
    registers: Mutex<Registers>,
    started: Instant,
    sci: Arc<dyn InterruptLine>,
    power: Arc<dyn Power>,
}

#[derive(Default)]
struct Registers {
    status: u16,
    enable: u16,
    control: u16,
    gpe_status: u16,
    gpe_enable: u16,
    sci: bool,
}

impl PmRegisters {
    /// Returns registers in their reset state. The timer starts now.
    pub(crate) fn new(sci: Arc<dyn InterruptLine>, power: Arc<dyn Power>) -> PmRegisters {
        PmRegisters { registers: Mutex::default(), started: Instant::now(), sci, power }
    }

    /// Presses the power button. A guest whose ACPI driver is active shuts down; any other guest
    /// ignores it.
    pub(crate) fn press_power_button(&self) {
        self.update(|registers| registers.status |= POWER_BUTTON);
    }

    /// Raises the general purpose event `event`, 0 to 15. A guest whose ACPI driver has enabled it
    /// handles it; otherwise it stays pending.
    pub(crate) fn raise_event(&self, event: u8) {
        self.update(|registers| {
            registers.gpe_status |= 1_u16.checked_shl(event.into()).unwrap_or(0);
        });
    }

    /// Restores the power-on state. The timer continues.
    pub(crate) fn reset(&self) {
        self.update(|registers| {
            *registers = Registers { sci: registers.sci, ..Registers::default() }
        });
    }

    /// Changes registers, then sets the level of the SCI accordingly.
    fn update(&self, change: impl FnOnce(&mut Registers)) {
        let mut registers = self.registers.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut registers);
        let high = registers.status & registers.enable != 0
            || registers.gpe_status & registers.gpe_enable != 0;
        if high != registers.sci && self.sci.set_level(high).is_ok() {
            registers.sci = high;
        }
    }

    /// Returns the PM timer.
    pub(crate) fn timer(&self) -> u32 {
        (self.started.elapsed().as_nanos() * TIMER_HZ / 1_000_000_000) as u32
    }

    fn control_written(&self, value: u16) {
        self.update(|registers| registers.control = value & !SLEEP_ENABLE);
        if value & SLEEP_ENABLE != 0 {
            match value >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK {
                SLEEP_TYPE_OFF | SLEEP_TYPE_HIBERNATE => self.power.request(PowerRequest::PowerOff),
                // No other sleep state is offered.
                _ => {}
            }
        }
    }
}

impl PioDevice for PmRegisters {
    fn read(&self, offset: u16) -> u8 {
        let registers = self.registers.lock().unwrap_or_else(PoisonError::into_inner);
        let word = |value: u16| value.to_le_bytes()[usize::from(offset & 1)];
        match offset {
            0x0 | 0x1 => word(registers.status),
            0x2 | 0x3 => word(registers.enable),
            // ACPI mode is always enabled.
            0x4 | 0x5 => word(registers.control | SCI_ENABLE),
            // A guest reads all four bytes in one access (see `Wide`). A byte access returns a byte
            // of the current time.
            0x8..=0xB => self.timer().to_le_bytes()[usize::from(offset & 3)],
            0xC | 0xD => word(registers.gpe_status),
            0xE | 0xF => word(registers.gpe_enable),
            0x33 => 0,
            _ => 0xFF,
        }
    }

    fn write(&self, offset: u16, value: u8) {
        let place = |register: u16| {
            let mut bytes = register.to_le_bytes();
            bytes[usize::from(offset & 1)] = value;
            u16::from_le_bytes(bytes)
        };
        let only = || u16::from(value) << (8 * (offset & 1));
        match offset {
            // Status bits are cleared by writing ones.
            0x0 | 0x1 => self.update(|registers| registers.status &= !only()),
            0x2 | 0x3 => self.update(|registers| registers.enable = place(registers.enable)),
            0x4 | 0x5 => {
                let control = self.registers.lock().unwrap_or_else(PoisonError::into_inner).control;
                self.control_written(place(control));
            }
            0xC | 0xD => self.update(|registers| registers.gpe_status &= !only()),
            0xE | 0xF => {
                self.update(|registers| registers.gpe_enable = place(registers.gpe_enable));
            }
            0x33 if value == RESET_VALUE => self.power.request(PowerRequest::Reset),
            _ => {}
        }
    }
}

/// [`PmRegisters`] on the bus: the timer is read as a whole, other registers by the byte.
pub(crate) struct Wide(pub Arc<PmRegisters>);

impl vm_device::DevicePio for Wide {
    fn pio_read(&self, _base: vm_device::bus::PioAddress, offset: u16, data: &mut [u8]) {
        if offset == TIMER - BASE && data.len() == 4 {
            data.copy_from_slice(&self.0.timer().to_le_bytes());
            return;
        }
        for (offset, byte) in (offset..).zip(data) {
            *byte = self.0.read(offset);
        }
    }

    fn pio_write(&self, _base: vm_device::bus::PioAddress, offset: u16, data: &[u8]) {
        for (offset, byte) in (offset..).zip(data) {
            self.0.write(offset, *byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[derive(Default)]
    struct Recorder {
        level: AtomicBool,
        requests: Mutex<Vec<PowerRequest>>,
    }

    impl InterruptLine for Recorder {
        fn pulse(&self) -> io::Result<()> {
            unreachable!("the SCI is level-triggered")
        }

        fn set_level(&self, high: bool) -> io::Result<()> {
            self.level.store(high, Ordering::SeqCst);
            Ok(())
        }
    }

    impl Power for Recorder {
        fn request(&self, request: PowerRequest) {
            self.requests.lock().unwrap().push(request);
        }
    }

    fn pm() -> (Arc<Recorder>, PmRegisters) {
        let recorder = Arc::new(Recorder::default());
        (Arc::clone(&recorder), PmRegisters::new(recorder.clone(), recorder))
    }

    fn write_word(pm: &PmRegisters, offset: u16, value: u16) {
        for (offset, byte) in (offset..).zip(value.to_le_bytes()) {
            pm.write(offset, byte);
        }
    }

    #[test]
    fn test_power_button_raises_sci_only_when_enabled_until_cleared() {
        let (recorder, pm) = pm();
        pm.press_power_button();
        assert!(!recorder.level.load(Ordering::SeqCst), "not enabled yet");
        write_word(&pm, 2, POWER_BUTTON);
        assert!(recorder.level.load(Ordering::SeqCst));
        write_word(&pm, 0, POWER_BUTTON);
        assert!(!recorder.level.load(Ordering::SeqCst));
        assert_eq!(pm.read(1), 0);
    }

    #[test]
    fn test_general_purpose_event_raises_sci_only_when_enabled_until_cleared() {
        let (recorder, pm) = pm();
        pm.raise_event(0);
        assert!(!recorder.level.load(Ordering::SeqCst), "not enabled yet");
        write_word(&pm, 0xE, 1);
        assert!(recorder.level.load(Ordering::SeqCst));
        write_word(&pm, 0xC, 1);
        assert!(!recorder.level.load(Ordering::SeqCst));
        pm.raise_event(15);
        assert_eq!((pm.read(0xC), pm.read(0xD)), (0, 0x80));
        pm.raise_event(16);
        assert_eq!((pm.read(0xC), pm.read(0xD)), (0, 0x80), "there is no such event");
    }

    #[test]
    fn test_sleep_enable_type_zero_powers_off() {
        let (recorder, pm) = pm();
        write_word(&pm, 4, SLEEP_ENABLE);
        assert_eq!(*recorder.requests.lock().unwrap(), [PowerRequest::PowerOff]);
        assert_eq!(pm.read(4) & 1, 1, "SCI_EN");
        assert_eq!(pm.read(5) & 0x20, 0, "SLP_EN reads 0");
    }

    #[test]
    fn test_sleep_type_without_enable_or_unknown_does_nothing() {
        let (recorder, pm) = pm();
        write_word(&pm, 4, 5 << SLEEP_TYPE_SHIFT | SLEEP_ENABLE);
        write_word(&pm, 4, 0);
        assert!(recorder.requests.lock().unwrap().is_empty());
    }

    #[test]
    fn test_reset_register_resets_on_its_value_only() {
        let (recorder, pm) = pm();
        pm.write(RESET - BASE, 0);
        assert!(recorder.requests.lock().unwrap().is_empty());
        pm.write(RESET - BASE, RESET_VALUE);
        assert_eq!(*recorder.requests.lock().unwrap(), [PowerRequest::Reset]);
    }

    #[test]
    fn test_reset_drops_the_sci() {
        let (recorder, pm) = pm();
        write_word(&pm, 2, POWER_BUTTON);
        pm.press_power_button();
        pm.reset();
        assert!(!recorder.level.load(Ordering::SeqCst));
        assert_eq!((pm.read(1), pm.read(3)), (0, 0));
    }

    #[test]
    fn test_any_write_anywhere_survives() {
        let (_recorder, pm) = pm();
        for offset in 0..PORTS {
            for value in 0..=255 {
                pm.write(offset, value);
                pm.read(offset);
            }
        }
    }
}
