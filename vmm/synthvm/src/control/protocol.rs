//! The messages of the control socket.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use synthvm_net::LinkState;

use super::{ControlTarget, StopReason, StreamKind};
use crate::config::{ByteSize, DiskConfig, DvdConfig, LimitsConfig};
use crate::display::PointerRequest;
use crate::inspect::metrics;
use crate::services::ServiceRequest;

/// The longest request line in bytes, including the newline. A longer one is answered with an
/// error, and the client is dropped, because the start of the next request is unknown.
pub const MAX_REQUEST_BYTES: usize = 64 << 10;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Check that the machine answers. Returns null.
    Ping {},
    /// Return an [`crate::inspect::InspectReport`].
    Inspect {},
    /// Return the metrics of an [`crate::inspect::InspectReport`] as a text in Prometheus' format.
    Metrics {},
    /// Press the power button.
    PowerButton {},
    /// Give the machine a new generation id: the guest's state was copied or taken back.
    NewGeneration {},
    /// Start the guest again.
    Reset {},
    /// Stop the machine without asking the guest.
    Stop {},
    /// Stop the vCPUs between two instructions.
    Pause {},
    /// Let the vCPUs run again.
    Resume {},
    /// Turn this connection into a stream of the serial port's bytes, once the answer was sent.
    OpenSerial {
        /// The port: 1 or 2.
        #[serde(default = "first_port")]
        port: u8,
    },
    /// Turn this connection into a stream to the screen (RFB, without a password), once the answer
    /// was sent.
    OpenScreen {},
    /// Return a new link to the machine's browser console, as a text.
    WebLink {},
    /// Add a disk to a controller of the running machine. Returns a [`DiskPlace`].
    DiskAdd {
        /// The disk, as under `[[disk]]` in a machine's file; its path is absolute.
        disk: Box<DiskConfig>,
    },
    /// Add a DVD drive to a controller of the running machine. Returns a [`DiskPlace`].
    DvdAdd {
        /// The drive, as under `[[dvd]]` in a machine's file; the path of its disc, if any, is
        /// absolute.
        dvd: Box<DvdConfig>,
    },
    /// Remove a disk or a drive after its requests in flight have finished.
    DiskRemove {
        /// The disk's id, or `controller:lun`.
        id: String,
    },
    /// Enlarge a disk and its image.
    DiskResize {
        /// The disk's id, or `controller:lun`.
        id: String,
        /// The new size.
        size: ByteSize,
    },
    /// Change the limits of a disk.
    DiskThrottle {
        /// The disk's id, or `controller:lun`.
        id: String,
        /// The new limits.
        limits: LimitsConfig,
    },
    /// Insert a disc into a DVD drive, and replace the disc in it.
    DiskInsert {
        /// The drive's id, or `controller:lun`.
        id: String,
        /// The path of the disc's image; absolute.
        path: PathBuf,
    },
    /// Remove the disc from a DVD drive.
    DiskEject {
        /// The drive's id, or `controller:lun`.
        id: String,
        /// Whether to eject even if the guest has locked the tray.
        #[serde(default)]
        force: bool,
    },
    /// Take the link of a network card down, or up again.
    NetLink {
        /// The card's id.
        id: String,
        /// The state.
        link: LinkState,
    },
    /// Write the picture of the screen to a file. Returns a [`ScreenSize`].
    ///
    /// [`ScreenSize`]: crate::display::ScreenSize
    Screenshot {
        /// The path of the PNG file, which is created or replaced; absolute.
        path: PathBuf,
    },
    /// Press and release combinations of keys.
    SendKeys {
        /// The combinations, as in `synthvm send-keys`, separated by blanks.
        keys: String,
    },
    /// Type a text on a US keyboard.
    TypeText {
        /// The text.
        text: String,
    },
    /// Move the pointer and set its buttons.
    Pointer {
        /// The position and the buttons.
        pointer: PointerRequest,
    },
    /// Ask the guest's integration services. Returns what the inner request states.
    Service {
        /// The inner request.
        request: Box<ServiceRequest>,
    },
    /// Return the state of dynamic memory: a [`MemoryReport`].
    ///
    /// [`MemoryReport`]: crate::dynamic_memory::MemoryReport
    MemoryStatus {},
    /// Set the size that the guest shall have.
    MemorySet {
        /// The size; null or absent: the guest's demand decides.
        #[serde(default)]
        size: Option<ByteSize>,
    },
}

fn first_port() -> u8 {
    1
}

/// The address of a disk that was added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskPlace {
    /// The id for later requests.
    pub id: String,
    /// Number of the controller.
    pub controller: u32,
    /// Number on the controller.
    pub lun: u8,
}

/// The names of all requests, for messages.
const NAMES: &str = "ping, inspect, metrics, power-button, new-generation, reset, stop, \
    disk-add, dvd-add, disk-remove, disk-resize, disk-throttle, disk-insert, disk-eject, net-link, \
    screenshot, send-keys, type-text, pointer, pause, resume, open-serial, open-screen, web-link, \
    service, memory-status, memory-set";

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// The refusal of an invalid request.
    pub(super) fn parse(line: &[u8]) -> Result<Self, Reply> {
        serde_json::from_slice(line).map_err(|error| {
            Reply::refused(format!(
                "not understood: {error}; write {{\"do\":NAME}} with one of {NAMES}"
            ))
        })
    }

    /// Returns the stream that the request asks for.
    pub(super) fn stream(&self) -> Option<StreamKind> {
        match self {
            Request::OpenSerial { port } => Some(StreamKind::Serial(*port)),
            Request::OpenScreen {} => Some(StreamKind::Screen),
            _ => None,
        }
    }

    /// Returns whether the request may wait for a file or for the guest.
    pub(super) fn waits(&self) -> bool {
        match self {
            Request::Ping {}
            | Request::Inspect {}
            | Request::Metrics {}
            | Request::PowerButton {}
            | Request::NewGeneration {}
            | Request::Reset {}
            | Request::Stop {}
            | Request::Pause {}
            | Request::Resume {}
            | Request::OpenSerial { .. }
            | Request::OpenScreen {}
            | Request::WebLink {}
            | Request::NetLink { .. }
            | Request::SendKeys { .. }
            | Request::TypeText { .. }
            | Request::Pointer { .. }
            | Request::MemoryStatus {}
            | Request::MemorySet { .. } => false,
            Request::DiskAdd { .. }
            | Request::DvdAdd { .. }
            | Request::DiskRemove { .. }
            | Request::DiskResize { .. }
            | Request::DiskThrottle { .. }
            | Request::DiskInsert { .. }
            | Request::DiskEject { .. }
            | Request::Screenshot { .. }
            | Request::Service { .. } => true,
        }
    }
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Whether the request succeeded.
    pub ok: bool,
    /// The result; null if the request has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// The cause of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The part of the machine at fault, if it is not the machine itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
}

/// The part of the machine at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The guest has no driver for the request, refused it, or did not answer in time.
    Guest,
}

impl Reply {
    /// Returns the answer to a request that succeeded.
    pub fn done(value: Value) -> Self {
        Reply { ok: true, value: Some(value), error: None, cause: None }
    }

    /// Returns the answer to a request that failed.
    pub fn refused(error: impl Into<String>) -> Self {
        Reply { ok: false, value: None, error: Some(error.into()), cause: None }
    }

    /// Returns the answer as a line, including the newline.
    pub(super) fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self)
            .unwrap_or_else(|_| br#"{"ok":false,"error":"unprintable"}"#.to_vec());
        line.push(b'\n');
        line
    }
}

/// Executes `request` on `target` and returns the answer.
pub(crate) fn perform(request: Request, target: &dyn ControlTarget) -> Reply {
    match request {
        Request::Ping {} => Reply::done(Value::Null),
        Request::Inspect {} => reply(Ok(target.inspect())),
        Request::Metrics {} => reply(Ok(metrics(&target.inspect()))),
        Request::PowerButton {} => reply(target.power_button()),
        Request::NewGeneration {} => reply(target.new_generation()),
        Request::Reset {} => reply(target.reset()),
        Request::Stop {} => reply(target.stop(StopReason::Requested)),
        Request::Pause {} => reply(target.pause()),
        Request::Resume {} => reply(target.resume()),
        Request::OpenSerial { port } => reply(target.check_stream(StreamKind::Serial(port))),
        Request::OpenScreen {} => reply(target.check_stream(StreamKind::Screen)),
        Request::WebLink {} => reply(target.web_link()),
        Request::DiskAdd { disk } => reply(target.add_disk(*disk)),
        Request::DvdAdd { dvd } => reply(target.add_dvd(*dvd)),
        Request::DiskRemove { id } => reply(target.remove_disk(&id)),
        Request::DiskResize { id, size } => reply(target.resize_disk(&id, size.bytes())),
        Request::DiskThrottle { id, limits } => reply(target.throttle_disk(&id, &limits)),
        Request::DiskInsert { id, path } => reply(target.insert_disc(&id, &path)),
        Request::DiskEject { id, force } => reply(target.eject_disc(&id, force)),
        Request::NetLink { id, link } => reply(target.set_link(&id, link)),
        Request::Screenshot { path } => reply(target.screenshot(&path)),
        Request::SendKeys { keys } => reply(target.send_keys(&keys)),
        Request::TypeText { text } => reply(target.type_text(&text)),
        Request::Pointer { pointer } => reply(target.point(&pointer)),
        // Its answer comes later: `Jobs::ask_guest`.
        Request::Service { .. } => Reply::refused("this request cannot be answered here"),
        Request::MemoryStatus {} => reply(target.memory()),
        Request::MemorySet { size } => reply(target.set_memory(size)),
    }
}

fn reply(result: Result<impl Serialize, String>) -> Reply {
    match result.map(serde_json::to_value) {
        Ok(Ok(value)) => Reply::done(value),
        Ok(Err(error)) => Reply::refused(format!("cannot write the answer: {error}")),
        Err(error) => Reply::refused(error),
    }
}
