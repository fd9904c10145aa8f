//! Where a serial port's bytes go.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The host's end of a 16550.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SerialConfig {
    /// The port exists; output is dropped and there is no input.
    #[default]
    Null,
    /// The terminal that `synthvm` was started in (in raw mode while the guest runs).
    Stdio,
    /// Output only, to this file, which is created or emptied.
    File(PathBuf),
    /// A listening Unix socket; one client at a time, output is dropped while there is none.
    Socket(PathBuf),
}

impl SerialConfig {
    /// The default of the first port.
    pub(super) fn stdio() -> Self {
        SerialConfig::Stdio
    }
}
