//! Limits of a disk's rates.

use std::num::NonZeroU64;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::node::Bare;
use super::{ByteSize, ConfigError, de, keyvalue};

/// The limits of a disk. An absent value means no limit. After a pause, a tenth of a second's
/// amount may pass without delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LimitsConfig {
    /// Requests per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<NonZeroU64>,
    /// Reads per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_iops: Option<NonZeroU64>,
    /// Writes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_iops: Option<NonZeroU64>,
    /// Bytes per second; not 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bps: Option<ByteSize>,
    /// Bytes read per second; not 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_bps: Option<ByteSize>,
    /// Bytes written per second; not 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_bps: Option<ByteSize>,
}

impl FromStr for LimitsConfig {
    type Err = ConfigError;

    /// Reads `iops=500,bps=20M`; `none` means no limit.
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        if text == "none" {
            return Ok(Self::default());
        }
        let limits: LimitsConfig =
            de::from_node(&keyvalue::parse("limits", text, Bare::key("iops"))?)?;
        limits.check().map_err(|message| ConfigError::new(format!("limits {text}: {message}")))?;
        Ok(limits)
    }
}

impl LimitsConfig {
    /// Refuses a limit of 0, which would block the guest.
    pub(super) fn check(&self) -> Result<(), String> {
        let bytes = [("bps", self.bps), ("read-bps", self.read_bps), ("write-bps", self.write_bps)];
        match bytes.into_iter().find(|(_, size)| size.is_some_and(|size| size.bytes() == 0)) {
            Some((key, _)) => {
                Err(format!("`{key}` is 0, which would block the guest; leave it out for no limit"))
            }
            None => Ok(()),
        }
    }
}
