//! Limits of a disk's rates.

use std::num::NonZeroU64;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use synthvm_block::{Limits, Rate};

use super::node::Bare;
use super::{ByteSize, ConfigError, de, keyvalue};

/// Declares a struct that has the keys of a disk's limits after its own fields. An absent limit
/// means no limit.
///
/// The keys stand beside the disk's other keys. `#[serde(flatten)]` would read them there too, but
/// its errors would lack the line of a wrong value and the known keys.
macro_rules! with_limits {
    ($(#[$attribute:meta])* pub struct $name:ident { $($own:tt)* }) => {
        $(#[$attribute])*
        pub struct $name {
            $($own)*
            /// Requests per second, of all kinds.
            pub iops: Option<std::num::NonZeroU64>,
            /// Reads per second.
            pub read_iops: Option<std::num::NonZeroU64>,
            /// Writes per second.
            pub write_iops: Option<std::num::NonZeroU64>,
            /// Bytes per second; not 0.
            pub bps: Option<ByteSize>,
            /// Bytes read per second; not 0.
            pub read_bps: Option<ByteSize>,
            /// Bytes written per second; not 0.
            pub write_bps: Option<ByteSize>,
        }
    };
}
pub(super) use with_limits;

with_limits! {
    /// The limits of a disk. After a pause, a tenth of a second's amount may pass without delay.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
    pub struct LimitsConfig {}
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
    /// Returns the limits as the storage layer enforces them.
    pub(crate) fn rates(&self) -> Limits {
        let rate = |number: Option<NonZeroU64>| number.map(Rate::per_second);
        let bytes =
            |size: Option<ByteSize>| rate(size.and_then(|size| NonZeroU64::new(size.bytes())));
        Limits {
            requests: rate(self.iops),
            reads: rate(self.read_iops),
            writes: rate(self.write_iops),
            bytes: bytes(self.bps),
            read_bytes: bytes(self.read_bps),
            written_bytes: bytes(self.write_bps),
        }
    }

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
