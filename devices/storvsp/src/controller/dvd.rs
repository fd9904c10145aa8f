//! DVD drives of a controller: discs are inserted and ejected while the guest runs.
//!
//! Each insertion creates a new logical unit around the same drive, so that every worker finishes
//! its requests on the old disc's queue and starts with the new one. The drive has its own record
//! of the disc; both change under one lock.

use std::sync::Arc;

use super::ScsiController;
use crate::error::{AddDiskError, DvdError};
use crate::lun::{DiskOptions, Lun, check_queue};
use crate::lun_set::drive_at;
use synthvm_block::Backend;
use synthvm_scsi::{BlockSize, DiskIdentity, DvdDrive, LogicalUnit};

impl ScsiController {
    /// Adds a DVD drive at `lun`, with a disc or empty. The label in `options` is that of the disc.
    /// A running guest is notified.
    ///
    /// # Errors
    /// [`AddDiskError`].
    pub fn add_dvd(
        &self,
        lun: u8,
        disc: Option<Arc<dyn Backend>>,
        options: DiskOptions,
    ) -> Result<(), AddDiskError> {
        let identity = match options.serial {
            Some(serial) => {
                DiskIdentity::with_serial(&serial).ok_or(AddDiskError::Serial(serial))?
            }
            None => DiskIdentity::derived(&[
                b"synthvm scsi dvd",
                &self.inner.luns.number().to_le_bytes(),
                &[lun],
            ]),
        };
        let drive = Arc::new(DvdDrive::new(identity));
        let unit = match &disc {
            Some(backend) => {
                let capacity = check(backend)?;
                put_in(drive, capacity)?
            }
            None => LogicalUnit::Dvd { drive, disc: None },
        };
        self.inner.luns.add(lun, Lun::dvd(lun, unit, disc, options.label))
    }

    /// Inserts a disc into the drive at `lun`, and replaces the disc in it. Reports call it
    /// `label`. The guest sees the disc at its next poll of the drive, within a few seconds.
    ///
    /// # Errors
    /// See [`DvdError`]. On error the drive is unchanged.
    pub fn insert(
        &self,
        lun: u8,
        backend: Arc<dyn Backend>,
        label: String,
    ) -> Result<(), DvdError> {
        drive_at(&mut self.inner.luns.luns(), lun).map(drop)?;
        // Opening a queue may block, so it happens outside the lock that reports take.
        let capacity = check(&backend)?;
        self.inner.luns.exchange(|luns| {
            let (place, drive) = drive_at(luns, lun)?;
            let unit = put_in(drive, capacity)?;
            *place = Arc::new(place.with_disc(unit, Some(backend), label));
            Ok(())
        })
    }

    /// Ejects the disc from the drive at `lun`, if there is one, and leaves the tray open. Requests
    /// in progress are finished.
    ///
    /// # Errors
    /// [`DvdError::NoDrive`]; [`DvdError::Locked`] if the guest has locked the tray, unless
    /// `force`. A guest sees a forced ejection as a failure of the disc in use.
    pub fn eject(&self, lun: u8, force: bool) -> Result<(), DvdError> {
        self.inner.luns.exchange(|luns| {
            let (place, drive) = drive_at(luns, lun)?;
            drive.eject(force)?;
            *place = Arc::new(place.with_disc(
                LogicalUnit::Dvd { drive, disc: None },
                None,
                String::new(),
            ));
            Ok(())
        })
    }
}

/// Checks that `backend` can be a disc and can be read. Returns its capacity in bytes.
fn check(backend: &Arc<dyn Backend>) -> Result<u64, DvdError> {
    let geometry = backend.geometry();
    if geometry.block_size == BlockSize::B4096 {
        return Err(DvdError::BlockSize(geometry.block_size.bytes()));
    }
    check_queue(backend)?;
    Ok(geometry.capacity)
}

/// Inserts a disc of `capacity` bytes into `drive`. Returns the new logical unit.
fn put_in(drive: Arc<DvdDrive>, capacity: u64) -> Result<LogicalUnit, DvdError> {
    match drive.insert(capacity)? {
        Some(disc) => Ok(LogicalUnit::Dvd { drive, disc: Some(disc) }),
        None => Err(DvdError::TooSmall),
    }
}
