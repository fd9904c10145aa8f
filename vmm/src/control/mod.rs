//! How a running machine is asked and told things: a Unix socket that speaks one JSON object a line.
//!
//! Request: `{"do":"inspect"}`. Answer: `{"ok":true,"value":...}` or `{"ok":false,"error":"..."}`. Answers come in the order of the
//! requests. The socket is created with mode 0600: whoever may open it may do everything.

mod client;
mod connection;
mod protocol;
mod server;
mod socket;
mod stop;

use crate::inspect::InspectReport;

pub use client::{Client, ClientError};
pub use protocol::{MAX_REQUEST_BYTES, Reply, Request};
pub use server::{ControlServer, MAX_CLIENTS};
pub use socket::{ControlSocket, SocketError};
pub use stop::{StopSignals, block_stop_signals};

/// Why a machine is to be stopped without its guest's consent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// Somebody asked for it through the control socket.
    Requested,
    /// This signal came, and the guest did not power down in time, or the signal came twice.
    Signal(i32),
}

/// What the control socket and the stop signals may ask of a machine. Called on the event loop: implementations take a snapshot or
/// start something; they never wait for the guest or for I/O.
pub trait ControlTarget: Send + Sync {
    /// Tells about the machine as it is now.
    fn inspect(&self) -> InspectReport;

    /// Presses the ACPI power button. What the guest makes of it is its own affair.
    ///
    /// # Errors
    /// Says why it could not be pressed.
    fn power_button(&self) -> Result<(), String>;

    /// Starts the guest again from its kernel.
    ///
    /// # Errors
    /// Says why it cannot.
    fn reset(&self) -> Result<(), String>;

    /// Stops the machine: vCPUs first, then rings are closed and disks flushed. Asking twice is no error.
    ///
    /// # Errors
    /// Says why it cannot.
    fn stop(&self, reason: StopReason) -> Result<(), String>;
}
