//! DVD drives.

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::node::Bare;
use super::{ConfigError, check_id, de, disk, keyvalue};

/// `--dvd a.iso` is `--dvd path=a.iso`.
pub(super) const BARE: Bare = Bare::key("path");

/// One DVD drive on a VMBus SCSI controller. Discs can be changed while the machine runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DvdConfig {
    /// ISO image that is in it at first; without one it is empty.
    #[serde(
        default,
        deserialize_with = "de::optional_host_path",
        skip_serializing_if = "Option::is_none"
    )]
    pub path: Option<PathBuf>,
    /// The controller it hangs on, as a disk's.
    #[serde(default, deserialize_with = "disk::controller")]
    pub controller: u32,
    /// Its number on the controller, as a disk's. Always set after loading.
    #[serde(default, deserialize_with = "disk::lun", skip_serializing_if = "Option::is_none")]
    pub lun: Option<u8>,
    /// What `synthvm inspect` and `synthvm disk` call it. Unique among disks and drives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

impl FromStr for DvdConfig {
    type Err = ConfigError;

    /// Reads what stands after `--dvd`.
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let dvd: DvdConfig = de::from_node(&keyvalue::parse("dvd", text, BARE)?)?;
        check_id(dvd.id.as_deref())
            .map_err(|message| ConfigError::new(format!("dvd {text}: {message}")))?;
        Ok(dvd)
    }
}
