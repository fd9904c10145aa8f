//! 16550 serial ports and the host's ends of them: terminal, file, socket, nothing.

mod output;
mod port;
mod pump;
mod socket;
mod stdio;
mod terminal;

pub use output::{FileOutput, Null, Output, SharedOutput, StdoutOutput};
pub use port::SerialPort;
pub use socket::{SocketOutput, SocketServer};
pub use stdio::{Escape, StdioInput};
pub use terminal::{RawTerminal, restore as restore_terminal};

/// Ports per 16550.
pub const PORTS: u16 = 8;
/// First port of COM1 (ttyS0).
pub const COM1_PORT: u16 = 0x3F8;
/// Interrupt of COM1.
pub const COM1_IRQ: u8 = 4;
/// First port of COM2 (ttyS1).
pub const COM2_PORT: u16 = 0x2F8;
/// Interrupt of COM2.
pub const COM2_IRQ: u8 = 3;
