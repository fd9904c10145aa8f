//! How a running machine is asked and told things: a Unix socket that speaks one JSON object a
//! line.
//!
//! Request: `{"do":"inspect"}`. Answer: `{"ok":true,"value":...}` or `{"ok":false,"error":"..."}`.
//! Answers come in the order of the requests. The socket is created with mode 0600: whoever may
//! open it may do everything.

mod client;
mod connection;
mod jobs;
mod protocol;
mod server;
mod stop;

use std::path::Path;

use crate::config::{DiskConfig, DvdConfig, LimitsConfig};
use crate::inspect::InspectReport;

pub use client::{Client, ClientError};
pub use protocol::{DiskPlace, MAX_REQUEST_BYTES, Reply, Request};
pub use server::{ControlServer, MAX_CLIENTS};
pub use stop::{StopSignals, block_stop_signals};

/// Why a machine is to be stopped without its guest's consent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// Somebody asked for it through the control socket.
    Requested,
    /// This signal came, and the guest did not power down in time, or the signal came twice.
    Signal(i32),
}

/// What the control socket and the stop signals may ask of a machine. Called on the event loop,
/// where implementations take a snapshot or start something and never wait for the guest or for
/// I/O; but changes of disks are called one at a time on a thread that may wait for files.
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

    /// Stops the machine: vCPUs first, then rings are closed and disks flushed. Asking twice is no
    /// error.
    ///
    /// # Errors
    /// Says why it cannot.
    fn stop(&self, reason: StopReason) -> Result<(), String>;

    /// Puts a disk on a controller. The guest is told to look.
    ///
    /// # Errors
    /// Says why it cannot; nothing has changed then.
    fn add_disk(&self, disk: DiskConfig) -> Result<DiskPlace, String>;

    /// Puts a DVD drive on a controller, with a disc or empty. The guest is told to look.
    ///
    /// # Errors
    /// Says why it cannot; nothing has changed then.
    fn add_dvd(&self, dvd: DvdConfig) -> Result<DiskPlace, String>;

    /// Takes the disk or drive away that is named `id`: what the guest began is finished, and
    /// durable when this returns; then the image is closed.
    ///
    /// # Errors
    /// Says why it cannot.
    fn remove_disk(&self, id: &str) -> Result<(), String>;

    /// Makes the disk `id` larger: `size` bytes.
    ///
    /// # Errors
    /// Says why it cannot; nothing has changed then.
    fn resize_disk(&self, id: &str, size: u64) -> Result<(), String>;

    /// Gives the disk `id` other limits.
    ///
    /// # Errors
    /// Says why it cannot.
    fn throttle_disk(&self, id: &str, limits: &LimitsConfig) -> Result<(), String>;

    /// Puts the disc at `path` into the DVD drive `id`.
    ///
    /// # Errors
    /// Says why it cannot; nothing has changed then.
    fn insert_disc(&self, id: &str, path: &Path) -> Result<(), String>;

    /// Takes the disc out of the DVD drive `id`, also when the guest has locked its tray if
    /// `force`.
    ///
    /// # Errors
    /// Says why it cannot.
    fn eject_disc(&self, id: &str, force: bool) -> Result<(), String>;
}
