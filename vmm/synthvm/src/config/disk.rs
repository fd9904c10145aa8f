//! Configuration of disks.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use synthvm_block::{BlockSize, CacheMode, IoMode};
use synthvm_images::{Format, Parents};

use super::limits::with_limits;
use super::node::Bare;
use super::{ByteSize, ConfigError, LimitsConfig, check_names, de, keyvalue};

/// Number of controllers; they are numbered 0 to this, less one. Each is a channel with a ring and
/// a worker. The limit is four times that of Hyper-V.
pub const MAX_CONTROLLERS: u32 = 16;

/// Number of LUNs of a controller, numbered 0 to this, less one. Linux's storvsc asks for no more
/// than 64 (`STORVSC_MAX_LUNS_PER_TARGET`).
pub const MAX_LUNS: u8 = 64;

/// `--disk a.img` is `--disk path=a.img`; `--disk ram:1G` is `--disk ram=1G`.
pub(super) const BARE: Bare =
    Bare { key: "path", prefixes: &["ram", "null"], lists: &[], words: &[] };

with_limits! {
    /// A disk on a VMBus SCSI controller.
    ///
    /// It has exactly one of `path`, `ram` and `null`; [`DiskConfig::source`] returns which.
    #[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
    pub struct DiskConfig {
        /// Image file or block device. Empty for a disk without one.
        #[serde(deserialize_with = "de::host_path", skip_serializing_if = "is_empty")]
        pub path: PathBuf,
        /// Size of a disk in the host's memory. It is zero at first, and lost with the machine.
        pub ram: Option<ByteSize>,
        /// Size of a disk that discards writes and reads as zero, for measurements.
        pub null: Option<ByteSize>,
        /// Size of the image, which is created if it does not exist. An image that exists is
        /// opened as it is.
        pub size: Option<ByteSize>,
        /// The guest cannot write, and the image is opened read-only.
        pub readonly: bool,
        /// The disk's controller, 0 to [`MAX_CONTROLLERS`] - 1. A controller exists if a disk
        /// names it.
        #[serde(deserialize_with = "controller")]
        pub controller: u32,
        /// The LUN on the controller, 0 to [`MAX_LUNS`] - 1. Default: the lowest free number, in
        /// the order of the disks. Always set after loading.
        #[serde(deserialize_with = "lun")]
        pub lun: Option<u8>,
        /// The disk's name in `synthvm inspect`. Unique among the disks.
        pub id: Option<String>,
        /// Serial number that the guest sees (VPD pages 80h and 83h): 1 to 32 printable ASCII
        /// characters.
        pub serial: Option<String>,
        /// Logical block size. Default: the image's own, which is 512 for raw images and block
        /// devices. It must be at least the image's own, and divide the image's size.
        pub block_size: Option<BlockSize>,
        /// Format of the image. Default: detected from name and content.
        pub format: Option<Format>,
        /// Whether the host's page cache is used.
        pub cache: CacheMode,
        /// The I/O path to the host's kernel.
        pub io: IoMode,
        /// Whether the guest's memory is registered with the host's kernel for this disk.
        pub buffers: BufferMode,
        /// Whether the image may refer to parent images.
        pub parents: Parents,
    }
}

/// The storage behind a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskSource<'a> {
    /// An image file or a block device.
    Image(&'a Path),
    /// Host memory of this size.
    Ram(ByteSize),
    /// No storage; the disk has this size.
    Null(ByteSize),
}

/// Formats the source as on a command line: `a.img`, `ram:1G`, `null:100G`.
impl fmt::Display for DiskSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskSource::Image(path) => write!(f, "{}", path.display()),
            DiskSource::Ram(size) => write!(f, "ram:{size}"),
            DiskSource::Null(size) => write!(f, "null:{size}"),
        }
    }
}

/// Whether the guest's memory is registered with the host's kernel for a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BufferMode {
    /// The kernel looks up and pins the pages of each request.
    #[default]
    Plain,
    /// All guest memory is registered as buffers of io_uring, and stays locked while the disk
    /// exists.
    Fixed,
}

impl DiskConfig {
    /// Returns a writable disk with defaults for all options but its path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        DiskConfig { path: path.into(), ..DiskConfig::default() }
    }

    /// Returns the storage behind the disk.
    pub fn source(&self) -> DiskSource<'_> {
        match (self.ram, self.null) {
            (Some(size), _) => DiskSource::Ram(size),
            (None, Some(size)) => DiskSource::Null(size),
            (None, None) => DiskSource::Image(&self.path),
        }
    }

    /// Returns whether the image does not exist and is to be created.
    #[must_use]
    pub fn is_new(&self) -> bool {
        // A link to a file that does not exist is no file to create.
        self.size.is_some()
            && self.path.symlink_metadata().is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
    }

    /// Returns the format of a new image: the one that was asked for, or that of its name.
    #[must_use]
    pub fn new_format(&self) -> Option<Format> {
        self.format.or_else(|| Format::of_name(&self.path))
    }

    /// Returns the limits of the disk.
    pub fn limits(&self) -> LimitsConfig {
        let DiskConfig { iops, read_iops, write_iops, bps, read_bps, write_bps, .. } = *self;
        LimitsConfig { iops, read_iops, write_iops, bps, read_bps, write_bps }
    }
}

impl FromStr for DiskConfig {
    type Err = ConfigError;

    /// Parses the value of the option `--disk`.
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
    super::optional_bounded(deserializer, "a LUN", 0..=MAX_LUNS - 1)
}
