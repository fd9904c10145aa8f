//! Errors of a controller's disks and drives.

use std::io;

use synthvm_block::IoError;
use synthvm_scsi::{DVD_BLOCK, DiskIdentity, DiskTooSmall, TrayLocked};

/// The error of adding a disk or a drive.
#[derive(Debug, thiserror::Error)]
pub enum AddDiskError {
    /// The LUN is not in 0..=63.
    #[error("LUN {0} does not exist: a controller has LUNs 0 to 63")]
    NoSuchLun(u8),
    /// The LUN has a disk already.
    #[error("LUN {0} of the controller has a disk already")]
    LunInUse(u8),
    /// The serial number is too long or has invalid characters.
    #[error(
        "serial number {0:?} is not 1 to {max} printable ASCII characters",
        max = DiskIdentity::MAX_SERIAL
    )]
    Serial(String),
    /// The backend is too small for a disk.
    #[error(transparent)]
    TooSmall(#[from] DiskTooSmall),
    /// The backend could not be used.
    #[error("cannot use the disk's backend: {0}")]
    Backend(#[from] io::Error),
    /// The backend is not valid for a disc.
    #[error(transparent)]
    Disc(#[from] DvdError),
}

/// The error of inserting or ejecting a disc.
#[derive(Debug, thiserror::Error)]
pub enum DvdError {
    /// The LUN has no drive.
    #[error("LUN {0} of the controller has no DVD drive")]
    NoDrive(u8),
    /// The guest has locked the tray.
    #[error(
        "the guest uses the disc and has locked the tray; it has been asked to release the disc: \
        try again later, or force the tray open"
    )]
    Locked,
    /// The image is too small.
    #[error("a disc has at least one block of {DVD_BLOCK} bytes")]
    TooSmall,
    /// The backend's block size is larger than a disc's.
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

/// The error of flushing a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot flush the disk at LUN {lun}: {error}")]
pub struct FlushError {
    /// The LUN of the disk.
    pub lun: u8,
    /// The backend's error.
    pub error: IoError,
}
