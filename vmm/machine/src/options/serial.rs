//! The host ends of serial ports.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The host's end of a 16550: `null`, `stdio`, `file=PATH` or `socket=PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SerialConfig {
    /// The port exists; output is dropped and there is no input.
    #[default]
    Null,
    /// The terminal that `synthvm` was started in (in raw mode while the guest runs).
    Stdio,
    /// Output only, to this file, which is created or emptied.
    #[serde(deserialize_with = "host_path")]
    File(PathBuf),
    /// A listening Unix socket with one client at a time. The newest 64 KiB of output are kept for
    /// the next client.
    #[serde(deserialize_with = "host_path")]
    Socket(PathBuf),
}

impl SerialConfig {
    /// Returns the default of the first port.
    #[must_use]
    pub fn stdio() -> Self {
        SerialConfig::Stdio
    }
}

impl fmt::Display for SerialConfig {
    /// Writes the value in the form that a configuration has: `null`, `file=PATH`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SerialConfig::Null => f.write_str("null"),
            SerialConfig::Stdio => f.write_str("stdio"),
            SerialConfig::File(path) => write!(f, "file={}", path.display()),
            SerialConfig::Socket(path) => write!(f, "socket={}", path.display()),
        }
    }
}

impl Serialize for SerialConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads a path of the host, for `deserialize_with`.
///
/// # Errors
/// The value is not a path.
pub fn host_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    HostPath::deserialize(deserializer).map(|HostPath(path)| path)
}

/// Marks a value as a path of the host. A deserializer that knows the file of the value may resolve
/// the path, by this name. Any other deserializer uses it unchanged.
#[derive(Deserialize)]
struct HostPath(PathBuf);
