//! What is said over the control socket.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ControlTarget, StopReason};
use crate::config::{ByteSize, DiskConfig, DvdConfig, LimitsConfig};

/// The longest request line, newline included. A longer one is answered with an error and the
/// client is dropped, because where the next request starts is anyone's guess.
pub const MAX_REQUEST_BYTES: usize = 64 << 10;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Answer with null: somebody is there.
    Ping {},
    /// Answer with an [`crate::inspect::InspectReport`].
    Inspect {},
    /// Press the power button.
    PowerButton {},
    /// Start the guest again.
    Reset {},
    /// Stop the machine without asking the guest.
    Stop {},
    /// Put a disk on a controller of the running machine. Answers with a [`DiskPlace`].
    DiskAdd {
        /// The disk, as under `[[disk]]` in a machine's file; its path is absolute.
        disk: Box<DiskConfig>,
    },
    /// Put a DVD drive on a controller of the running machine. Answers with a [`DiskPlace`].
    DvdAdd {
        /// The drive, as under `[[dvd]]` in a machine's file; the path of its disc, if it has one,
        /// is absolute.
        dvd: Box<DvdConfig>,
    },
    /// Take a disk or a drive away. What was begun is finished.
    DiskRemove {
        /// The disk's id, or `controller:lun`.
        id: String,
    },
    /// Make a disk larger, and its image.
    DiskResize {
        /// The disk's id, or `controller:lun`.
        id: String,
        /// Its new size.
        size: ByteSize,
    },
    /// Give a disk other limits.
    DiskThrottle {
        /// The disk's id, or `controller:lun`.
        id: String,
        /// What it may do in a second from now on.
        limits: LimitsConfig,
    },
    /// Put a disc into a DVD drive, in place of one that may be there.
    DiskInsert {
        /// The drive's id, or `controller:lun`.
        id: String,
        /// The disc's image; absolute.
        path: PathBuf,
    },
    /// Take the disc out of a DVD drive.
    DiskEject {
        /// The drive's id, or `controller:lun`.
        id: String,
        /// Also when the guest has locked the tray.
        #[serde(default)]
        force: bool,
    },
}

/// Where a disk that was added is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskPlace {
    /// By what it can be named from now on.
    pub id: String,
    /// Number of its controller.
    pub controller: u32,
    /// Number on the controller.
    pub lun: u8,
}

/// The names of all requests, for messages.
const NAMES: &str = "ping, inspect, power-button, reset, stop, disk-add, dvd-add, disk-remove, disk-resize, disk-throttle, disk-insert, disk-eject";

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// The answer to what is none.
    pub(super) fn parse(line: &[u8]) -> Result<Self, Reply> {
        serde_json::from_slice(line).map_err(|error| {
            Reply::refused(format!(
                "not understood: {error}; write {{\"do\":NAME}} with one of {NAMES}"
            ))
        })
    }

    /// Whether it may wait for a file.
    pub(super) fn waits(&self) -> bool {
        match self {
            Request::Ping {}
            | Request::Inspect {}
            | Request::PowerButton {}
            | Request::Reset {}
            | Request::Stop {} => false,
            Request::DiskAdd { .. }
            | Request::DvdAdd { .. }
            | Request::DiskRemove { .. }
            | Request::DiskResize { .. }
            | Request::DiskThrottle { .. }
            | Request::DiskInsert { .. }
            | Request::DiskEject { .. } => true,
        }
    }
}

/// What is answered to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Whether it was done.
    pub ok: bool,
    /// What was asked for; null when there is nothing to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// Why it was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Reply {
    /// It was done.
    pub fn done(value: Value) -> Self {
        Reply { ok: true, value: Some(value), error: None }
    }

    /// It was not done.
    pub fn refused(error: impl Into<String>) -> Self {
        Reply { ok: false, value: None, error: Some(error.into()) }
    }

    /// As a line with its newline.
    pub(super) fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self)
            .unwrap_or_else(|_| br#"{"ok":false,"error":"unprintable"}"#.to_vec());
        line.push(b'\n');
        line
    }
}

/// Does what `request` asks for.
pub(super) fn perform(request: Request, target: &dyn ControlTarget) -> Reply {
    match request {
        Request::Ping {} => Reply::done(Value::Null),
        Request::Inspect {} => told(Ok(target.inspect())),
        Request::PowerButton {} => told(target.power_button()),
        Request::Reset {} => told(target.reset()),
        Request::Stop {} => told(target.stop(StopReason::Requested)),
        Request::DiskAdd { disk } => told(target.add_disk(*disk)),
        Request::DvdAdd { dvd } => told(target.add_dvd(*dvd)),
        Request::DiskRemove { id } => told(target.remove_disk(&id)),
        Request::DiskResize { id, size } => told(target.resize_disk(&id, size.bytes())),
        Request::DiskThrottle { id, limits } => told(target.throttle_disk(&id, &limits)),
        Request::DiskInsert { id, path } => told(target.insert_disc(&id, &path)),
        Request::DiskEject { id, force } => told(target.eject_disc(&id, force)),
    }
}

fn told(result: Result<impl Serialize, String>) -> Reply {
    match result.map(serde_json::to_value) {
        Ok(Ok(value)) => Reply::done(value),
        Ok(Err(error)) => Reply::refused(format!("cannot write the answer: {error}")),
        Err(error) => Reply::refused(error),
    }
}
