//! A 16550 on the I/O port bus.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use vm_superio::serial::SerialEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

use super::SharedOutput;
use crate::devices::{InterruptLine, PioDevice};

/// A 16550.
///
/// Output is sent to the host without the register lock, so that a host that does not read blocks
/// only the vCPU that writes.
pub(crate) struct SerialPort {
    registers: Mutex<Registers>,
    output: SharedOutput,
    drained: Arc<EventFd>,
    watches: DrainedWatches,
}

/// The events that are signalled when the guest has read all input.
type DrainedWatches = Arc<Mutex<Vec<Arc<EventFd>>>>;

/// The registers. Transmitted bytes collect in the `Vec`; they are removed before the lock is
/// released.
type Registers = Serial<Line, Drained, Vec<u8>>;

struct Line(Arc<dyn InterruptLine>);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.pulse()
    }
}

/// Signals the input sides that the guest has read all input.
struct Drained(DrainedWatches);

impl Drained {
    fn signal(&self) {
        for watch in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            // The write fails only with 2^64 - 2 unread signals, and then one is pending anyway.
            let _ = watch.write(1);
        }
    }
}

impl SerialEvents for Drained {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}
    fn in_buffer_empty(&self) {
        self.signal();
    }
}

impl SerialPort {
    const DATA: u16 = 0;
    /// Interrupt identification (IIR).
    const IDENTIFICATION: u16 = 2;

    /// Returns a port in its reset state.
    ///
    /// # Errors
    /// No file descriptor is available.
    pub(crate) fn new(
        line: Arc<dyn InterruptLine>,
        output: SharedOutput,
    ) -> io::Result<SerialPort> {
        let drained = Arc::new(EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?);
        let watches: DrainedWatches = Arc::new(Mutex::new(vec![Arc::clone(&drained)]));
        let registers =
            Mutex::new(Serial::with_events(Line(line), Drained(Arc::clone(&watches)), Vec::new()));
        Ok(SerialPort { registers, output, drained, watches })
    }

    /// Restores the reset state. Bytes that the guest has not read are lost, as in a hardware
    /// reset.
    pub(crate) fn reset(&self) {
        let mut registers = self.lock();
        let line = Line(Arc::clone(&registers.interrupt_evt().0));
        let drained = Drained(Arc::clone(&self.watches));
        *registers = Serial::with_events(line, drained, Vec::new());
        drop(registers);
        Drained(Arc::clone(&self.watches)).signal();
    }

    /// Returns the free space of the receive buffer in bytes.
    pub(crate) fn room(&self) -> usize {
        self.lock().fifo_capacity()
    }

    /// Receives bytes from the host. Returns the number of bytes that fit.
    pub(crate) fn receive(&self, bytes: &[u8]) -> usize {
        // If the interrupt cannot be raised, the bytes stay in the buffer.
        self.lock().enqueue_raw_bytes(bytes).unwrap_or(0)
    }

    /// Returns a further event like [`SerialPort::drained`], for another input.
    ///
    /// # Errors
    /// No file descriptor is available.
    pub(crate) fn watch_drained(&self) -> io::Result<Arc<EventFd>> {
        let watch = Arc::new(EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?);
        self.watches.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&watch));
        Ok(watch)
    }

    /// Returns the event that is signalled each time the guest has emptied the receive buffer.
    pub(crate) fn drained(&self) -> &EventFd {
        &self.drained
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Registers> {
        self.registers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bits of the interrupt identification: no interrupt is pending; the kind; received data.
const NO_INTERRUPT: u8 = 1;
const IDENTITY: u8 = 0x0F;
const RECEIVED_DATA: u8 = 4;
/// Bit of the line status (at offset 5): data is in the receive buffer.
const LINE_STATUS: u8 = 5;
const DATA_READY: u8 = 1;
/// Bit of the interrupt enable register: received data.
const RECEIVED_DATA_ENABLED: u8 = 1;

/// Returns true if the guest has received data to read and wants an interrupt for it.
///
/// A 16550 reports that as long as data is there. The library forgets it at the first byte that the
/// guest reads. Linux reads at most 256 bytes for one report, and leaves the rest to the next one.
fn waits(registers: &mut Registers) -> bool {
    registers.read(LINE_STATUS) & DATA_READY != 0
        && registers.state().interrupt_enable & RECEIVED_DATA_ENABLED != 0
}

impl PioDevice for SerialPort {
    fn read(&self, offset: u16) -> u8 {
        let mut registers = self.lock();
        let value = registers.read(offset as u8);
        if offset == Self::IDENTIFICATION && value & NO_INTERRUPT != 0 && waits(&mut registers) {
            return value & !IDENTITY | RECEIVED_DATA;
        }
        value
    }

    fn write(&self, offset: u16, value: u8) {
        if offset != Self::DATA {
            let _ = self.lock().write(offset as u8, value);
            return;
        }
        // The output lock is taken first, so that bytes of two vCPUs are sent in the order of their
        // writes.
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        let mut registers = self.lock();
        let _ = registers.write(offset as u8, value);
        let sent = !registers.writer().is_empty();
        registers.writer_mut().clear();
        drop(registers);
        if sent {
            output.write(&[value]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::Output;
    use super::*;

    #[derive(Default)]
    struct Pulses(AtomicUsize);

    impl InterruptLine for Pulses {
        fn pulse(&self) -> io::Result<()> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }

        fn set_level(&self, _high: bool) -> io::Result<()> {
            unreachable!("ISA serial interrupts are edges")
        }
    }

    struct Collect(Arc<Mutex<Vec<u8>>>);

    impl Output for Collect {
        fn write(&mut self, bytes: &[u8]) {
            self.0.lock().unwrap().extend_from_slice(bytes);
        }
    }

    fn port() -> (SerialPort, Arc<Pulses>, Arc<Mutex<Vec<u8>>>) {
        let pulses = Arc::new(Pulses::default());
        let bytes = Arc::default();
        let output: SharedOutput = Arc::new(Mutex::new(Collect(Arc::clone(&bytes))));
        (SerialPort::new(pulses.clone(), output).unwrap(), pulses, bytes)
    }

    #[test]
    fn test_write_data_reaches_the_host_but_divisor_does_not() {
        let (port, _, bytes) = port();
        port.write(0, b'a');
        port.write(3, 0x83);
        port.write(0, 1);
        port.write(3, 3);
        port.write(0, b'b');
        assert_eq!(*bytes.lock().unwrap(), b"ab");
    }

    #[test]
    fn test_loopback_mode_sends_nothing_out() {
        let (port, _, bytes) = port();
        port.write(4, 0x10);
        port.write(0, b'x');
        assert!(bytes.lock().unwrap().is_empty());
        assert_eq!(port.read(0), b'x');
    }

    #[test]
    fn test_receive_takes_what_fits_and_tells_when_drained() {
        let (port, pulses, _) = port();
        port.write(1, 1);
        let room = port.room();
        assert_eq!(port.receive(&vec![7; room + 5]), room);
        assert_eq!(port.receive(&[7]), 0);
        assert_eq!(pulses.0.load(Ordering::SeqCst), 1);
        assert!(port.drained().read().is_err(), "nothing read yet");
        for _ in 0..room {
            assert_eq!(port.read(0), 7);
        }
        assert_eq!(port.drained().read().unwrap(), 1);
    }

    #[test]
    fn test_interrupt_identification_reports_received_data_until_all_is_read() {
        let (port, _, _) = port();
        port.write(1, 1);
        port.receive(b"abc");
        for byte in *b"abc" {
            assert_eq!(port.read(2) & 0x0F, 4, "before {byte}");
            assert_eq!(port.read(0), byte);
        }
        assert_eq!(port.read(2) & 0x0F, 1);
        // A guest that polls is told of no interrupt.
        port.write(1, 0);
        port.receive(b"d");
        assert_eq!(port.read(2) & 0x0F, 1);
    }

    #[test]
    fn test_reset_drops_unread_input_and_frees_the_buffer() {
        let (port, _, _) = port();
        let room = port.room();
        port.receive(&vec![1; room]);
        port.write(7, 0x5A);
        port.reset();
        assert_eq!(port.room(), room);
        assert_eq!(port.read(7), 0);
        assert!(port.drained().read().is_ok(), "input may flow again");
    }
}
