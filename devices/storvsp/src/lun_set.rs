//! The logical units of a controller, shared by the workers of all its channels.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use vmbus_device::{InlineWorkers, WorkerOptions, Workers};

use crate::error::{AddDiskError, DvdError};
use crate::lun::{DiskReport, Lun};
use crate::protocol::{MAX_LUNS, Routing};
use synthvm_scsi::{DvdDrive, LogicalUnit};

/// Disks and drives by LUN.
pub(crate) type Luns = [Option<Arc<Lun>>; MAX_LUNS];

/// The logical units of controller `number`, and the workers that serve them.
#[derive(Debug)]
pub(crate) struct LunSet {
    number: u32,
    workers: Workers<Option<u64>>,
    routing: Routing,
    luns: Mutex<Luns>,
    /// Removed units. Each lives as long as a worker has requests on it.
    removed: Mutex<Vec<Weak<Lun>>>,
    /// Incremented with each change of `luns`; workers compare it before they take the lock.
    generation: AtomicU64,
    /// Incremented with the changes that guests must be notified of.
    notices: AtomicU64,
}

impl LunSet {
    /// Returns a controller's set without logical units.
    pub(crate) fn new(number: u32, options: WorkerOptions, routing: Routing) -> Self {
        Self {
            number,
            workers: Workers::new(format!("scsi{}", number % 10_000), options),
            routing,
            luns: Mutex::new([const { None }; MAX_LUNS]),
            removed: Mutex::default(),
            generation: AtomicU64::new(0),
            notices: AtomicU64::new(0),
        }
    }

    /// Returns the controller's number.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Returns the address scheme of the controller's disks.
    pub(crate) fn routing(&self) -> Routing {
        self.routing
    }

    /// Returns the workers of the controller's channels.
    pub(crate) fn workers(&self) -> &Workers<Option<u64>> {
        &self.workers
    }

    /// Returns the inline workers, if they serve the channels instead of threads.
    pub(crate) fn inline(&self) -> Option<&InlineWorkers> {
        self.workers.options().inline.as_ref()
    }

    /// Returns the number of changes of the LUNs so far.
    #[inline]
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Returns the number of changes of the LUNs that guests must be notified of. It rises no later
    /// than [`LunSet::generation`].
    pub(crate) fn notices(&self) -> u64 {
        self.notices.load(Ordering::Acquire)
    }

    /// Returns the logical units.
    pub(crate) fn luns(&self) -> MutexGuard<'_, Luns> {
        self.luns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns reports of all disks and drives, in order of LUN.
    pub(crate) fn reports(&self) -> Vec<DiskReport> {
        self.luns().iter().flatten().map(|lun| self.report(lun)).collect()
    }

    /// Returns reports of removed units with requests in flight, in order of removal.
    pub(crate) fn removed_reports(&self) -> Vec<DiskReport> {
        let removed = self.removed();
        let reports = removed.iter().filter_map(Weak::upgrade).map(|lun| self.report(&lun));
        let reports = reports.map(|report| DiskReport { removed: true, ..report });
        reports.filter(|report| report.stats.in_flight != 0).collect()
    }

    /// Adds `new` at `lun`.
    ///
    /// # Errors
    /// The LUN does not exist, or it is in use.
    pub(crate) fn add(&self, lun: u8, new: Lun) -> Result<(), AddDiskError> {
        self.change(|luns| {
            let place = luns.get_mut(usize::from(lun)).ok_or(AddDiskError::NoSuchLun(lun))?;
            if place.is_some() {
                return Err(AddDiskError::LunInUse(lun));
            }
            *place = Some(Arc::new(new));
            Ok(())
        })
    }

    /// Removes the unit at `lun`. Returns false if there is none.
    pub(crate) fn remove(&self, lun: u8) -> bool {
        let take = |luns: &mut Luns| {
            let lun = luns.get_mut(usize::from(lun)).and_then(Option::take).ok_or(())?;
            let mut removed = self.removed();
            removed.retain(|lun| lun.strong_count() != 0);
            removed.push(Arc::downgrade(&lun));
            Ok::<_, ()>(())
        };
        self.change(take).is_ok()
    }

    /// Changes the LUNs. If `change` succeeds, every worker applies the new set and guests are
    /// notified.
    pub(crate) fn change<E>(
        &self,
        change: impl FnOnce(&mut Luns) -> Result<(), E>,
    ) -> Result<(), E> {
        self.exchange(|luns| {
            change(luns)?;
            self.notices.fetch_add(1, Ordering::AcqRel);
            Ok(())
        })
    }

    /// Changes the LUNs as [`LunSet::change`] does, without a notification. For changes that guests
    /// detect by polling.
    pub(crate) fn exchange<E>(
        &self,
        change: impl FnOnce(&mut Luns) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut luns = self.luns();
        // Keeps removed units alive until the lock is released, as closing an image may block.
        let _before = luns.clone();
        let changed = change(&mut luns);
        if changed.is_ok() {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        drop(luns);
        self.kick();
        changed
    }

    /// Wakes all workers: their shared state has changed.
    pub(crate) fn kick(&self) {
        self.workers.kick();
    }

    /// Closes the image of a disc that the guest has ejected from the drive at `lun`, unless
    /// another disc has been inserted since.
    pub(crate) fn ejected(&self, lun: u8) {
        // An error means that there is nothing to close.
        let _ = self.exchange(|luns| {
            let (place, drive) = drive_at(luns, lun)?;
            if drive.report().has_disc {
                return Err(DvdError::Locked);
            }
            let empty = LogicalUnit::Dvd { drive, disc: None };
            *place = Arc::new(place.with_disc(empty, None, String::new()));
            Ok(())
        });
    }

    /// Unlocks the trays of all drives, as a guest starts.
    pub(crate) fn unlock_trays(&self) {
        for lun in self.luns().iter().flatten() {
            if let LogicalUnit::Dvd { drive, .. } = &lun.unit {
                drive.reset();
            }
        }
    }

    fn report(&self, lun: &Lun) -> DiskReport {
        lun.report(self.number, self.workers.moderated())
    }

    fn removed(&self) -> MutexGuard<'_, Vec<Weak<Lun>>> {
        self.removed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the drive at `lun`.
///
/// # Errors
/// The LUN has no drive.
pub(crate) fn drive_at(
    luns: &mut Luns,
    lun: u8,
) -> Result<(&mut Arc<Lun>, Arc<DvdDrive>), DvdError> {
    let place =
        luns.get_mut(usize::from(lun)).and_then(Option::as_mut).ok_or(DvdError::NoDrive(lun))?;
    let drive = match &place.unit {
        LogicalUnit::Dvd { drive, .. } => Arc::clone(drive),
        LogicalUnit::Disk(_) => return Err(DvdError::NoDrive(lun)),
    };
    Ok((place, drive))
}
