//! COM1.

use core::fmt;

use crate::cpu;

const PORT: u16 = 0x3F8;
const LINE_STATUS: u16 = PORT + 5;
const EMPTY: u8 = 1 << 5;

/// Writes to COM1.
pub(crate) struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            while cpu::in8(LINE_STATUS) & EMPTY == 0 {}
            cpu::out8(PORT, byte);
        }
        Ok(())
    }
}
