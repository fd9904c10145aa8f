//! The display: screen, keyboard and mouse.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use synthvm_video::protocol::Resolution;
use synthvm_web_console::check_address;

use super::de::optional_host_path;
use super::node::Bare;
use super::vnc::VncAddress;

/// The key of a bare value: `--display headless` is `--display mode=headless`.
pub(super) const BARE: Bare = Bare::key("mode");

/// Bytes of video memory: enough for a frame of [`Resolution::MAX`].
pub const VIDEO_MEMORY_BYTES: usize = 32 << 20;

/// The display of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct DisplayConfig {
    /// Whether there is a display.
    pub mode: DisplayMode,
    /// The resolution that the guest is told to prefer.
    #[serde(serialize_with = "write", deserialize_with = "read")]
    pub resolution: Resolution,
    /// The address of the VNC server. Absent: none. With it there are the devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vnc: Option<VncAddress>,
    /// The file whose first line is the password for full access.
    #[serde(deserialize_with = "optional_host_path", skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// The file whose first line is the password for viewing.
    #[serde(deserialize_with = "optional_host_path", skip_serializing_if = "Option::is_none")]
    pub view_password_file: Option<PathBuf>,
    /// The PEM file of the certificate for TLS, and of those that sign it.
    #[serde(deserialize_with = "optional_host_path", skip_serializing_if = "Option::is_none")]
    pub tls_cert: Option<PathBuf>,
    /// The PEM file of the certificate's key.
    #[serde(deserialize_with = "optional_host_path", skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,
    /// The loopback address of the page for browsers. Absent: none. With it there are the devices.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "read_address")]
    pub web: Option<SocketAddr>,
}

impl Default for DisplayConfig {
    fn default() -> Self {
        Self {
            mode: DisplayMode::None,
            resolution: Resolution::new(1024, 768),
            vnc: None,
            password_file: None,
            view_password_file: None,
            tls_cert: None,
            tls_key: None,
            web: None,
        }
    }
}

/// The kinds of displays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DisplayMode {
    /// The machine has no video device, keyboard and mouse.
    #[default]
    None,
    /// The machine has all three, and the control socket is a way to them.
    Headless,
}

impl fmt::Display for DisplayMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Headless => "headless",
        })
    }
}

fn write<S: Serializer>(resolution: &Resolution, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(resolution)
}

fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Resolution, D::Error> {
    let text = String::deserialize(deserializer)?;
    let resolution = Resolution::from_str(&text).map_err(serde::de::Error::custom)?;
    resolution.check(VIDEO_MEMORY_BYTES as u64).map_err(serde::de::Error::custom)?;
    Ok(resolution)
}

/// Reads an address to which users of this machine only can connect.
fn read_address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let address = SocketAddr::from_str(&text).map_err(|_| {
        let message = format!("`{text}` is no address with a port, such as 127.0.0.1:8006");
        serde::de::Error::custom(message)
    })?;
    check_address(address).map_err(serde::de::Error::custom)?;
    Ok(Some(address))
}
