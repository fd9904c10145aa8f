//! Lines on the first serial port. The firmware's consoles do not exist yet when it runs option
//! ROMs.

use core::arch::asm;
use core::fmt::{self, Write};

const PORT: u16 = 0x3F8;
const LINE_STATUS: u16 = PORT + 5;
const TRANSMITTER_EMPTY: u8 = 0x20;
/// Polls before a byte is written in any case. A port that does not exist reads as all ones.
const MAX_POLLS: u32 = 100_000;

/// Writes a line that begins with the driver's name.
pub(super) fn say(message: fmt::Arguments<'_>) {
    // `Serial` returns no error.
    let _ = write!(Serial, "uefi-vmbus: {message}\r\n");
}

struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            let mut polls = 0;
            while input(LINE_STATUS) & TRANSMITTER_EMPTY == 0 && polls < MAX_POLLS {
                polls += 1;
            }
            output(PORT, byte);
        }
        Ok(())
    }
}

fn input(port: u16) -> u8 {
    let value;
    // SAFETY: the registers of a serial port, or of no device; reading them accesses no memory.
    unsafe {
        asm!("in al, dx", out("al") value, in("dx") port, options(nomem, nostack, preserves_flags));
    }
    value
}

fn output(port: u16, value: u8) {
    // SAFETY: as in `input`; the byte is sent to the port's other end.
    unsafe {
        asm!("out dx, al", in("al") value, in("dx") port, options(nomem, nostack, preserves_flags));
    }
}
