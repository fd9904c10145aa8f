//! 16550 serial ports and their host ends: terminal, file, socket, or none.

mod hub;
mod output;
mod port;
mod pump;
mod replay;
mod socket;
mod stdio;
mod terminal;

pub use hub::SerialHub;
pub(crate) use output::{FileOutput, Null, Output, SharedOutput, StdoutOutput};
pub(crate) use port::SerialPort;
pub(crate) use socket::SocketServer;
pub use stdio::Escape;
pub(crate) use stdio::StdioInput;
pub use terminal::RawTerminal;

/// Number of I/O ports of a 16550.
pub(crate) const PORTS: u16 = 8;
/// First port of COM1 (ttyS0).
pub(crate) const COM1_PORT: u16 = 0x3F8;
/// Interrupt of COM1.
pub(crate) const COM1_IRQ: u8 = 4;
/// First port of COM2 (ttyS1).
pub(crate) const COM2_PORT: u16 = 0x2F8;
/// Interrupt of COM2.
pub(crate) const COM2_IRQ: u8 = 3;
