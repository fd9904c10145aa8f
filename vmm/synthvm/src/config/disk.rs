//! Disks.

use std::fmt;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use synthvm_block::{BlockSize, CacheMode, IoMode};
use synthvm_images::{Format, Parents};

use super::node::Bare;
use super::{ByteSize, ConfigError, LimitsConfig, check_names, de, keyvalue};

/// Controllers are numbered 0 to this, less one. Each is a channel with a ring and a worker; 16 is
/// four times Hyper-V's own four.
pub const MAX_CONTROLLERS: u32 = 16;

/// LUNs are numbered 0 to this, less one: Linux's storvsc asks for no more than 64
/// (`STORVSC_MAX_LUNS_PER_TARGET`).
pub const MAX_LUNS: u8 = 64;

/// `--disk a.img` is `--disk path=a.img`; `--disk ram:1G` is `--disk ram=1G`.
pub(super) const BARE: Bare = Bare { key: "path", prefixes: &["ram", "null"] };

/// One disk on a VMBus SCSI controller.
///
/// It has exactly one of `path`, `ram` and `null`, which [`DiskConfig::source`] tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DiskConfig {
    /// Image file or block device. Empty for a disk without one.
    #[serde(default, deserialize_with = "super::de::host_path", skip_serializing_if = "is_empty")]
    pub path: PathBuf,
    /// Bytes of a disk in the host's memory, zero at first and gone with the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ram: Option<ByteSize>,
    /// Bytes of a disk that forgets writes and reads as zero, for measuring everything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub null: Option<ByteSize>,
    /// The guest may not write, and the image is opened for reading only.
    #[serde(default)]
    pub readonly: bool,
    /// The controller it hangs on, 0 to [`MAX_CONTROLLERS`] - 1. A controller exists when a disk
    /// names it.
    #[serde(default, deserialize_with = "controller")]
    pub controller: u32,
    /// Its number on the controller, 0 to [`MAX_LUNS`] - 1. Without one, the lowest free number,
    /// in the order of the disks. Always set after loading.
    #[serde(default, deserialize_with = "lun", skip_serializing_if = "Option::is_none")]
    pub lun: Option<u8>,
    /// What `synthvm inspect` calls it. Unique among the disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Serial number that the guest sees (VPD pages 80h and 83h): 1 to 32 printable ASCII
    /// characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Logical block size; the image's own unless given, which is 512 for raw images and block
    /// devices. It may be larger than the image's own, but not smaller, and the image's size
    /// is a multiple of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_size: Option<BlockSize>,
    /// Format of the image; as its name and content say unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Whether the host's page cache is used.
    #[serde(default)]
    pub cache: CacheMode,
    /// How requests reach the host's kernel.
    #[serde(default)]
    pub io: IoMode,
    /// Whether the host's kernel keeps the guest's memory in place for it.
    #[serde(default)]
    pub buffers: BufferMode,
    /// Whether the image may bring other files along.
    #[serde(default)]
    pub parents: Parents,
    /// Requests a second that it may do, of all kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<NonZeroU64>,
    /// Reads a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_iops: Option<NonZeroU64>,
    /// Writes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_iops: Option<NonZeroU64>,
    /// Bytes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bps: Option<ByteSize>,
    /// Bytes read a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_bps: Option<ByteSize>,
    /// Bytes written a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_bps: Option<ByteSize>,
}

/// What is behind a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskSource<'a> {
    /// An image file or a block device.
    Image(&'a Path),
    /// So many bytes of the host's memory.
    Ram(ByteSize),
    /// Nothing, of so many bytes.
    Null(ByteSize),
}

/// As on a command line: `a.img`, `ram:1G`, `null:100G`.
impl fmt::Display for DiskSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskSource::Image(path) => write!(f, "{}", path.display()),
            DiskSource::Ram(size) => write!(f, "ram:{size}"),
            DiskSource::Null(size) => write!(f, "null:{size}"),
        }
    }
}

/// Whether the host's kernel keeps the guest's memory in place for a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BufferMode {
    /// It looks up and holds the pages of each request.
    #[default]
    Plain,
    /// It knows all of the guest's memory beforehand (registered buffers of io_uring), which stays
    /// locked as long as the disk is there.
    Fixed,
}

impl DiskConfig {
    /// A writable disk with defaults for all but its path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        DiskConfig {
            path: path.into(),
            ram: None,
            null: None,
            readonly: false,
            controller: 0,
            lun: None,
            id: None,
            serial: None,
            block_size: None,
            format: None,
            cache: CacheMode::default(),
            io: IoMode::default(),
            buffers: BufferMode::default(),
            parents: Parents::default(),
            iops: None,
            read_iops: None,
            write_iops: None,
            bps: None,
            read_bps: None,
            write_bps: None,
        }
    }
}

impl DiskConfig {
    /// Returns what is behind it.
    pub fn source(&self) -> DiskSource<'_> {
        match (self.ram, self.null) {
            (Some(size), _) => DiskSource::Ram(size),
            (None, Some(size)) => DiskSource::Null(size),
            (None, None) => DiskSource::Image(&self.path),
        }
    }

    /// What it may do in a second.
    pub fn limits(&self) -> LimitsConfig {
        let DiskConfig { iops, read_iops, write_iops, bps, read_bps, write_bps, .. } = *self;
        LimitsConfig { iops, read_iops, write_iops, bps, read_bps, write_bps }
    }
}

impl FromStr for DiskConfig {
    type Err = ConfigError;

    /// Reads what stands after `--disk`.
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let disk: DiskConfig = de::from_node(&keyvalue::parse("disk", text, BARE)?)?;
        check_names(&disk)
            .map_err(|message| ConfigError::new(format!("disk {text}: {message}")))?;
        Ok(disk)
    }
}

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

pub(super) fn controller<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    super::bounded(deserializer, "a controller's number", 0..=MAX_CONTROLLERS - 1)
}

pub(super) fn lun<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    super::bounded(deserializer, "a LUN", 0..=MAX_LUNS - 1).map(Some)
}
