//! The control interface of a running machine: a Unix socket with one JSON object per line.
//!
//! Request: `{"do":"inspect"}`. Answer: `{"ok":true,"value":...}` or `{"ok":false,"error":"..."}`.
//! Answers have the order of the requests. The socket is created with mode 0600: every user who can
//! open it has full control.

mod client;
mod connection;
mod jobs;
mod protocol;
mod responder;
mod server;
mod stop;

use std::os::unix::net::UnixStream;
use std::path::Path;

use synthvm_net::LinkState;

use crate::config::{ByteSize, DiskConfig, DvdConfig, LimitsConfig};
use crate::display::{PointerRequest, ScreenSize};
use crate::dynamic_memory::MemoryReport;
use crate::inspect::InspectReport;
use crate::services::ServiceRequest;

pub use client::{Client, ClientError};
pub(crate) use protocol::perform;
pub use protocol::{Cause, DiskPlace, MAX_REQUEST_BYTES, Reply, Request};
pub use responder::{Hold, Responder};
pub use server::{ControlServer, MAX_CLIENTS};
pub use stop::{StopSignal, StopSignals, block_stop_signals, stop_signals};

/// The reason to stop a machine without its guest's consent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// A client of the control socket requested it.
    Requested,
    /// A signal arrived, and the guest did not power down in time, or a second signal arrived.
    Signal(i32),
}

/// What a client's connection can become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// The bytes of a serial port: 1 or 2.
    Serial(u8),
    /// The screen, by RFB, without a password.
    Screen,
}

/// The operations of the control socket and the stop signals on a machine. They are called on the
/// event loop, so they take a snapshot or start an action, and never wait for the guest or for I/O.
/// The exceptions are changes of disks and screenshots, which run one at a time on a thread that
/// may wait for files.
pub trait ControlTarget: Send + Sync {
    /// Returns a report of the machine's current state.
    fn inspect(&self) -> InspectReport;

    /// Presses the ACPI power button. The guest decides whether to react.
    ///
    /// # Errors
    /// Returns the cause if the button cannot be pressed.
    fn power_button(&self) -> Result<(), String>;

    /// Asks the guest to power off: by its shutdown service if its driver has connected, otherwise,
    /// or if the guest refuses, by the power button.
    ///
    /// # Errors
    /// Returns the cause if the guest cannot be asked.
    fn power_off(&self) -> Result<(), String>;

    /// Gives the machine a new generation id and notifies the guest.
    ///
    /// # Errors
    /// Returns the cause.
    fn new_generation(&self) -> Result<(), String>;

    /// Starts the guest again from its kernel.
    ///
    /// # Errors
    /// Returns the cause.
    fn reset(&self) -> Result<(), String>;

    /// Stops the machine: first the vCPUs, then the rings are closed and the disks flushed. A
    /// repeated call is no error.
    ///
    /// # Errors
    /// Returns the cause.
    fn stop(&self, reason: StopReason) -> Result<(), String>;

    /// Stops the vCPUs. A repeated call is no error.
    ///
    /// # Errors
    /// Returns the cause.
    fn pause(&self) -> Result<(), String>;

    /// Lets the vCPUs run again. A repeated call is no error.
    ///
    /// # Errors
    /// Returns the cause.
    fn resume(&self) -> Result<(), String>;

    /// Returns whether [`ControlTarget::open_stream`] would take a stream.
    ///
    /// # Errors
    /// Returns the cause.
    fn check_stream(&self, kind: StreamKind) -> Result<(), String>;

    /// Takes over a client's connection. The connection ends if that fails.
    ///
    /// # Errors
    /// Returns the cause.
    fn open_stream(&self, kind: StreamKind, stream: UnixStream) -> Result<(), String>;

    /// Returns a new link to the browser console.
    ///
    /// # Errors
    /// Returns the cause.
    fn web_link(&self) -> Result<String, String>;

    /// Adds a disk to a controller, and notifies the guest.
    ///
    /// # Errors
    /// Returns the cause; nothing has changed.
    fn add_disk(&self, disk: DiskConfig) -> Result<DiskPlace, String>;

    /// Adds a DVD drive to a controller, with a disc or empty, and notifies the guest.
    ///
    /// # Errors
    /// Returns the cause; nothing has changed.
    fn add_dvd(&self, dvd: DvdConfig) -> Result<DiskPlace, String>;

    /// Removes the disk or drive `id`. On return its requests in flight have finished, its data is
    /// durable, and the image is closed.
    ///
    /// # Errors
    /// Returns the cause.
    fn remove_disk(&self, id: &str) -> Result<(), String>;

    /// Enlarges the disk `id` to `size` bytes.
    ///
    /// # Errors
    /// Returns the cause; nothing has changed.
    fn resize_disk(&self, id: &str, size: u64) -> Result<(), String>;

    /// Changes the limits of the disk `id`.
    ///
    /// # Errors
    /// Returns the cause.
    fn throttle_disk(&self, id: &str, limits: &LimitsConfig) -> Result<(), String>;

    /// Inserts the disc at `path` into the DVD drive `id`.
    ///
    /// # Errors
    /// Returns the cause; nothing has changed.
    fn insert_disc(&self, id: &str, path: &Path) -> Result<(), String>;

    /// Removes the disc from the DVD drive `id`. With `force`, even if the guest has locked its
    /// tray.
    ///
    /// # Errors
    /// Returns the cause.
    fn eject_disc(&self, id: &str, force: bool) -> Result<(), String>;

    /// Takes the link of the network card `id` down, or up again. Does not wait.
    ///
    /// # Errors
    /// There is no such card.
    fn set_link(&self, id: &str, link: LinkState) -> Result<(), String>;

    /// Writes the picture of the screen to the PNG file `path`. May wait for the file.
    ///
    /// # Errors
    /// Returns the cause.
    fn screenshot(&self, path: &Path) -> Result<ScreenSize, String>;

    /// Presses and releases combinations of keys.
    ///
    /// # Errors
    /// Returns the cause; no key was pressed.
    fn send_keys(&self, keys: &str) -> Result<(), String>;

    /// Types a text.
    ///
    /// # Errors
    /// Returns the cause; no key was pressed.
    fn type_text(&self, text: &str) -> Result<(), String>;

    /// Moves the pointer.
    ///
    /// # Errors
    /// Returns the cause.
    fn point(&self, pointer: &PointerRequest) -> Result<(), String>;

    /// Asks the guest's integration services. Does not wait: `responder` answers later.
    fn service(&self, request: ServiceRequest, responder: Responder);
    /// Returns the state of dynamic memory.
    ///
    /// # Errors
    /// The machine has none.
    fn memory(&self) -> Result<MemoryReport, String>;

    /// Sets the size that the guest shall have. `None`: its demand decides. Does not wait.
    ///
    /// # Errors
    /// Returns the cause; nothing has changed.
    fn set_memory(&self, size: Option<ByteSize>) -> Result<(), String>;
}
