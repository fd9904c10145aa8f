//! Errors of a controller's disks and drives.

use std::io;

use synthvm_block::IoError;
use synthvm_scsi::{DVD_BLOCK, DiskConfigError, DiskIdentity, TrayLocked};

/// Why a disk could not be added.
#[derive(Debug, thiserror::Error)]
pub enum AddDiskError {
    /// LUNs are 0..=63.
    #[error("LUN {0} does not exist: a controller has LUNs 0 to 63")]
    NoSuchLun(u8),
    /// The LUN has a disk.
    #[error("LUN {0} of the controller has a disk already")]
    LunInUse(u8),
    /// The serial number does not fit.
    #[error("serial number {0:?} is not 1 to {max} printable ASCII characters", max = DiskIdentity::MAX_SERIAL)]
    Serial(String),
    /// The medium cannot be a disk.
    #[error(transparent)]
    Config(#[from] DiskConfigError),
    /// The backend could not be used.
    #[error("cannot use the disk's backend: {0}")]
    Backend(#[from] io::Error),
    /// The medium cannot be a disc.
    #[error(transparent)]
    Disc(#[from] DvdError),
}

/// Why a disc could not be put in or taken out.
#[derive(Debug, thiserror::Error)]
pub enum DvdError {
    /// There is no drive.
    #[error("LUN {0} of the controller has no DVD drive")]
    NoDrive(u8),
    /// The guest has locked the tray.
    #[error(
        "the guest has locked the tray, as it uses the disc; it was told that the disc is wanted: try again when it has let go, or force the tray open"
    )]
    Locked,
    /// The image is too small.
    #[error("a disc has at least one block of {DVD_BLOCK} bytes")]
    TooSmall,
    /// The image cannot be read in a disc's blocks.
    #[error(
        "a disc's blocks have {DVD_BLOCK} bytes, but the image can be read in blocks of {0} only"
    )]
    BlockSize(u32),
    /// The backend could not be used.
    #[error("cannot use the disc's backend: {0}")]
    Backend(#[from] io::Error),
}

impl From<TrayLocked> for DvdError {
    fn from(_: TrayLocked) -> Self {
        Self::Locked
    }
}

/// A disk could not be flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot flush the disk at LUN {lun}: {error}")]
pub struct FlushError {
    /// Its LUN.
    pub lun: u8,
    /// Why.
    pub error: IoError,
}
