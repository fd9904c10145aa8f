//! Errors of Hyper-V's generation 2 firmware.

use std::io;
use std::path::PathBuf;

use synthvm_msvm::{BlobError, ImageError, StoreError};

/// Firmware that cannot be started. Each variant tells which field of
/// [`MsvmConfig`](crate::MsvmConfig) is at fault.
#[derive(Debug, thiserror::Error)]
pub enum MsvmError {
    /// `image` cannot be read.
    #[error("{}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// `image` is not an image of this firmware.
    #[error("{} {source}", .path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// The difference.
        source: ImageError,
    },
    /// `variables`.
    #[error(transparent)]
    Variables(#[from] StoreError),
    /// The guest has too little memory.
    #[error("{mib} MiB of RAM is too small for this firmware; give at least 128 MiB")]
    Memory {
        /// RAM in MiB.
        mib: u64,
    },
    /// The firmware's timer is a synthetic one.
    #[error("this firmware needs synthetic timers, which the guest is not offered")]
    NoTimers,
    /// The configuration for the firmware. A defect of SynthVM.
    #[error("configuration for the firmware: {0}")]
    Blob(#[from] BlobError),
    /// Random numbers, or a timer.
    #[error("{what}: {source}")]
    System {
        /// The failed operation.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
}
