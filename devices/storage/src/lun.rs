//! A logical unit: a disk's meaning, its medium, its counters.

use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::warn;
use vmbus_host::log::Limiter;

use crate::backend::{Backend, IoError, Operation};
use crate::counters::{DiskCounters, DiskStats};
use crate::scsi::{self, CheckCondition, Disk, DiskConfig, DiskConfigError, DiskIdentity, LbaQuery};
use crate::storvsp::MAX_TRANSFER;

/// What a user may choose for a disk.
#[derive(Clone, Debug, Default)]
pub struct DiskOptions {
    /// Serial number, which also decides the disk's names under /dev/disk/by-id. Default: follows from image, controller and LUN.
    pub serial: Option<String>,
    /// What to call it in reports, such as the image's path. Default: nothing.
    pub label: String,
}

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
}

/// A disk's line in a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskReport {
    /// Controller number.
    pub controller: u32,
    /// LUN.
    pub lun: u8,
    /// [`DiskOptions::label`].
    pub label: String,
    /// Bytes, as the guest sees them.
    pub capacity: u64,
    /// Logical block size in bytes.
    pub block_size: u32,
    /// Writes are refused.
    pub read_only: bool,
    /// Serial number.
    pub serial: String,
    /// Counters.
    #[serde(flatten)]
    pub stats: DiskStats,
}

/// A logical unit, shared by the workers of all channels.
#[derive(Debug)]
pub(crate) struct Lun {
    pub(crate) number: u8,
    pub(crate) disk: Disk,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) counters: DiskCounters,
    label: String,
    log: Limiter,
}

impl Lun {
    pub(crate) fn new(
        controller: u32,
        number: u8,
        backend: Arc<dyn Backend>,
        options: DiskOptions,
    ) -> Result<Self, AddDiskError> {
        let geometry = backend.geometry();
        let identity = match &options.serial {
            Some(serial) => {
                DiskIdentity::with_serial(serial).ok_or_else(|| AddDiskError::Serial(serial.clone()))?
            }
            None => DiskIdentity::derived(&[
                b"synthvm scsi disk",
                backend.identity(),
                &controller.to_le_bytes(),
                &[number],
            ]),
        };
        let disk = Disk::new(DiskConfig {
            identity,
            capacity: geometry.capacity,
            block_size: geometry.block_size,
            physical_block_size: geometry.physical_block_size,
            read_only: geometry.read_only,
            write_cache: geometry.write_cache,
            rotational: geometry.rotational,
            max_transfer: MAX_TRANSFER,
            discard: geometry.discard,
        })?;
        // A backend that cannot give one queue now will not give one when the guest opens the channel.
        drop(backend.queue()?);
        let (counters, log) = (DiskCounters::default(), Limiter::default());
        Ok(Self { number, disk, backend, counters, label: options.label, log })
    }

    /// Counts and logs a failure of the backend.
    pub(crate) fn failed(&self, operation: Operation, offset: u64, error: IoError) {
        self.counters.failed();
        let (lun, label) = (self.number, &self.label);
        self.log.log(|left_out| {
            warn!(lun, %label, ?operation, offset, %error, left_out, "a disk request failed");
        });
    }

    /// Answers GET LBA STATUS into `out`.
    pub(crate) fn lba_status(&self, query: LbaQuery, out: &mut Vec<u8>) -> Result<(), CheckCondition> {
        let extent = |offset| self.backend.extent(offset);
        scsi::lba_status(query, self.disk.block_size(), extent, out).map_err(|error| {
            out.clear();
            self.failed(Operation::Read, query.range.offset, error);
            error.condition(Operation::Read)
        })
    }

    pub(crate) fn report(&self, controller: u32) -> DiskReport {
        DiskReport {
            controller,
            lun: self.number,
            label: self.label.clone(),
            capacity: self.disk.capacity(),
            block_size: self.disk.block_size().bytes(),
            read_only: self.disk.is_read_only(),
            serial: self.disk.identity().serial.clone(),
            stats: self.counters.snapshot(),
        }
    }
}
