//! The display: screen, keyboard and mouse.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use synthvm_video::protocol::Resolution;

use super::node::Bare;

/// The key of a bare value: `--display headless` is `--display mode=headless`.
pub(super) const BARE: Bare = Bare::key("mode");

/// Bytes of video memory: enough for a frame of [`Resolution::MAX`].
pub const VIDEO_MEMORY_BYTES: usize = 32 << 20;

/// The display of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct DisplayConfig {
    /// Whether there is a display.
    pub mode: DisplayMode,
    /// The resolution that the guest is told to prefer.
    #[serde(serialize_with = "write", deserialize_with = "read")]
    pub resolution: Resolution,
}

impl Default for DisplayConfig {
    fn default() -> Self {
        Self { mode: DisplayMode::None, resolution: Resolution::new(1024, 768) }
    }
}

/// The kinds of displays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DisplayMode {
    /// The machine has no video device, keyboard and mouse.
    #[default]
    None,
    /// The machine has all three, and the control socket is the only way to them.
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
