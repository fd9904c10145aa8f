//! DVD drives.

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::node::Bare;
use super::{ConfigError, check_id, de, disk, keyvalue};

/// The key of a bare value: `--dvd a.iso` is `--dvd path=a.iso`.
pub(super) const BARE: Bare = Bare::key("path");

/// A DVD drive on a VMBus SCSI controller. Discs can be changed while the machine runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct DvdConfig {
    /// The ISO image in the drive at the start. Without one, the drive is empty.
    #[serde(deserialize_with = "de::optional_host_path")]
    pub path: Option<PathBuf>,
    /// Number of the controller, as for a disk.
    #[serde(deserialize_with = "disk::controller")]
    pub controller: u32,
    /// Number of the drive on the controller, as for a disk. Always set after loading.
    #[serde(deserialize_with = "disk::lun")]
    pub lun: Option<u8>,
    /// The name in `synthvm inspect` and `synthvm disk`. Unique among disks and drives.
    pub id: Option<String>,
}

impl FromStr for DvdConfig {
    type Err = ConfigError;

    /// Reads the value of `--dvd`.
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let dvd: DvdConfig = de::from_node(&keyvalue::parse("dvd", text, BARE)?)?;
        check_id(dvd.id.as_deref())
            .map_err(|message| ConfigError::new(format!("dvd {text}: {message}")))?;
        Ok(dvd)
    }
}
