//! What a disk may do in a second.

use std::num::NonZeroU64;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::node::Bare;
use super::{ByteSize, ConfigError, de, keyvalue};

/// Limits of a disk; what is not given is not limited. A tenth of a second's worth may go at once
/// after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LimitsConfig {
    /// Requests a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<NonZeroU64>,
    /// Reads a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_iops: Option<NonZeroU64>,
    /// Writes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_iops: Option<NonZeroU64>,
    /// Bytes a second; not 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bps: Option<ByteSize>,
    /// Bytes read a second; not 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_bps: Option<ByteSize>,
    /// Bytes written a second; not 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_bps: Option<ByteSize>,
}

impl FromStr for LimitsConfig {
    type Err = ConfigError;

    /// Reads `iops=500,bps=20M`; `none` is no limit.
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
    /// A disk that may do nothing would hang its guest.
    pub(super) fn check(&self) -> Result<(), String> {
        let bytes = [("bps", self.bps), ("read-bps", self.read_bps), ("write-bps", self.write_bps)];
        match bytes.into_iter().find(|(_, size)| size.is_some_and(|size| size.bytes() == 0)) {
            Some((key, _)) => Err(format!(
                "`{key}` is 0, so that the guest would wait for ever; leave it away for no limit"
            )),
            None => Ok(()),
        }
    }
}
