//! DVD drives of a controller: discs go in and out while the guest runs.
//!
//! Each insertion makes a new logical unit around the same drive, so that every worker finishes
//! what it has on the old disc's queue and begins with the new one's. The drive itself knows which
//! disc is in it; both change under one lock.

use std::io;
use std::sync::Arc;

use super::{Controller, Luns, ScsiController};
use crate::lun::{AddDiskError, DiskOptions, Lun, check_queue};
use synthvm_block::Backend;
use synthvm_scsi::{BlockSize, DVD_BLOCK, DiskIdentity, DvdDrive, LogicalUnit, TrayLocked};

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

impl ScsiController {
    /// Puts a DVD drive at `lun`, with a disc or empty. Of `options`, the label is the disc's. A
    /// guest that runs is told to look.
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
                &self.inner.number.to_le_bytes(),
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
        self.inner.add(lun, Lun::dvd(lun, unit, disc, options.label))
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
        drive_at(&mut self.inner.luns(), lun).map(drop)?;
        // It waits for storage: not under the lock, which reports take.
        let capacity = check(&backend)?;
        self.inner.exchange(|luns| {
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
        self.inner.exchange(|luns| {
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

impl Controller {
    /// The guest took the disc out of the drive at `lun`: lets go of its image, unless another disc
    /// is in by now.
    pub(crate) fn ejected(&self, lun: u8) {
        // It fails when there is nothing to do.
        let _ = self.exchange(|luns| {
            let (place, drive) = drive_at(luns, lun)?;
            if drive.report().has_disc {
                return Err(DvdError::Locked);
            }
            *place = Arc::new(place.with_disc(
                LogicalUnit::Dvd { drive, disc: None },
                None,
                String::new(),
            ));
            Ok(())
        });
    }

    /// A guest began anew.
    pub(super) fn unlock_trays(&self) {
        for lun in self.luns().iter().flatten() {
            if let LogicalUnit::Dvd { drive, .. } = &lun.unit {
                drive.reset();
            }
        }
    }
}

fn drive_at(luns: &mut Luns, lun: u8) -> Result<(&mut Arc<Lun>, Arc<DvdDrive>), DvdError> {
    let place =
        luns.get_mut(usize::from(lun)).and_then(Option::as_mut).ok_or(DvdError::NoDrive(lun))?;
    let drive = match &place.unit {
        LogicalUnit::Dvd { drive, .. } => Arc::clone(drive),
        LogicalUnit::Disk(_) => return Err(DvdError::NoDrive(lun)),
    };
    Ok((place, drive))
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
