//! DVD drives of a controller: discs go in and out while the guest runs.
//!
//! Each insertion makes a new logical unit around the same drive, so that every worker finishes
//! what it has on the old disc's queue and begins with the new one's. The drive itself knows which
//! disc is in it; both change under one lock.

use std::sync::Arc;

use super::ScsiController;
use crate::error::{AddDiskError, DvdError};
use crate::lun::{DiskOptions, Lun, check_queue};
use crate::lun_set::drive_at;
use synthvm_block::Backend;
use synthvm_scsi::{BlockSize, DiskIdentity, DvdDrive, LogicalUnit};

impl ScsiController {
    /// Puts a DVD drive at `lun`, with a disc or empty. Of `options`, the label is the disc's. A
    /// running guest is notified.
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

    /// Puts a disc into the drive at `lun`, in place of one that may be there; `label` is what to
    /// call it in reports. The guest sees it when it polls the drive the next time, as it does
    /// every few seconds.
    ///
    /// # Errors
    /// [`DvdError`]; then the disc that was there still is.
    pub fn insert(
        &self,
        lun: u8,
        backend: Arc<dyn Backend>,
        label: String,
    ) -> Result<(), DvdError> {
        drive_at(&mut self.inner.luns.luns(), lun).map(drop)?;
        // It waits for storage: not under the lock, which reports take.
        let capacity = check(&backend)?;
        self.inner.luns.exchange(|luns| {
            let (place, drive) = drive_at(luns, lun)?;
            let unit = put_in(drive, capacity)?;
            *place = Arc::new(place.with_disc(unit, Some(backend), label));
            Ok(())
        })
    }

    /// Takes the disc out of the drive at `lun`, if one is there, and leaves the tray open.
    /// Requests that were begun are finished.
    ///
    /// # Errors
    /// [`DvdError::NoDrive`]; [`DvdError::Locked`] unless `force`, which a guest sees as the
    /// failure of a disc that it uses.
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

/// Checks that `backend` is fit for a disc, and that it can be read. Returns its bytes.
fn check(backend: &Arc<dyn Backend>) -> Result<u64, DvdError> {
    let geometry = backend.geometry();
    if geometry.block_size == BlockSize::B4096 {
        return Err(DvdError::BlockSize(geometry.block_size.bytes()));
    }
    check_queue(backend)?;
    Ok(geometry.capacity)
}

/// Puts a disc of `capacity` bytes into `drive`.
fn put_in(drive: Arc<DvdDrive>, capacity: u64) -> Result<LogicalUnit, DvdError> {
    match drive.insert(capacity)? {
        Some(disc) => Ok(LogicalUnit::Dvd { drive, disc: Some(disc) }),
        None => Err(DvdError::TooSmall),
    }
}
