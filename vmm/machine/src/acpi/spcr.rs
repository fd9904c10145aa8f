//! SPCR: the first serial port is a console (Serial Port Console Redirection Table, revision 2).
//! Linux takes it as its early console if its command line has `earlycon`; Windows for its Special
//! Administration Console, if the boot configuration enables EMS.

use acpi_tables::sdt::Sdt;

use crate::devices::serial;

/// A port that is compatible with the 16550.
const FULL_16550: u8 = 0;
/// A generic address: I/O space, 8 bits, offset 0, access by bytes.
const IO_BYTES: [u8; 4] = [1, 8, 0, 1];
/// The interrupt is connected to the PIC and to the IOAPIC.
const PIC_AND_IOAPIC: u8 = 3;
/// 115,200 baud, no parity, one stop bit, no flow control, ANSI terminal, language of the system.
const LINE: [u8; 6] = [7, 0, 1, 0, 3, 0];
/// The port is no PCI device: vendor and device all ones; bus, device and function, flags, segment
/// and a reserved word 0.
const NO_PCI: [u8; 16] = [0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

pub(super) fn build() -> Sdt {
    let mut spcr = super::table(*b"SPCR", 2);
    spcr.append_slice(&[FULL_16550, 0, 0, 0]);
    spcr.append_slice(&IO_BYTES);
    spcr.append_slice(&u64::from(serial::COM1_PORT).to_le_bytes());
    spcr.append_slice(&[PIC_AND_IOAPIC, serial::COM1_IRQ]);
    spcr.append_slice(&u32::from(serial::COM1_IRQ).to_le_bytes());
    spcr.append_slice(&LINE);
    spcr.append_slice(&NO_PCI);
    spcr
}
