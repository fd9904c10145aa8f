//! A synthetic SCSI controller: one device on the bus, up to 64 disks and DVD drives behind it.

mod dvd;
mod quiesce;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use vmbus_device::{InlineWorkers, WorkerOptions, Workers};
use vmbus_host::{Channel, Device, Offer, OpenError};
use vmbus_protocol::Guid;

use crate::channel::StorageHandler;
use crate::lun::{AddDiskError, DiskOptions, DiskReport, Lun};
use crate::protocol::{MAX_LUNS, Negotiation, Routing, Session};
use synthvm_block::{self as block, Backend, IoError};
use synthvm_scsi::derive_guid;

/// {ba6163d9-04a1-4d29-b605-72e2ffb1dc7f}: the class of SCSI controllers.
pub const SCSI_CONTROLLER: Guid =
    Guid::new(0xba61_63d9, 0x04a1, 0x4d29, [0xb6, 0x05, 0x72, 0xe2, 0xff, 0xb1, 0xdc, 0x7f]);

/// A SCSI controller. Clones are handles to the same one: give one to the bus, keep another to add
/// disks and to ask for reports.
#[derive(Clone, Debug)]
pub struct ScsiController {
    inner: Arc<Controller>,
}

/// The choices of a user for a controller.
#[derive(Clone, Debug, Default)]
pub struct ControllerOptions {
    /// Channels that guests may open beside the primary; one less than there are vCPUs is what
    /// Linux asks for. Default: none.
    pub max_subchannels: u16,
    /// Of the workers that serve the channels.
    pub workers: WorkerOptions,
}

pub use dvd::DvdError;

/// Disks and drives by LUN.
type Luns = [Option<Arc<Lun>>; MAX_LUNS];

/// What the workers of all channels share.
#[derive(Debug)]
pub(crate) struct Controller {
    number: u32,
    max_subchannels: u16,
    workers: Workers<Option<u64>>,
    routing: Routing,
    luns: Mutex<Luns>,
    /// Those that were taken away; they live as long as a worker has requests on them.
    removed: Mutex<Vec<Weak<Lun>>>,
    /// Rises with each change of `luns`, so that workers look only then.
    generation: AtomicU64,
    /// Rises with those changes that a guest must be notified of.
    notices: AtomicU64,
    /// Of the primary channel that was opened last.
    negotiation: Mutex<Arc<Negotiation>>,
}

impl ScsiController {
    /// Controller `number` of the machine, whose place among its controllers and whose instance
    /// GUID follow from it. Guests may open up to `max_subchannels` channels beside the
    /// primary.
    pub fn new(number: u32, max_subchannels: u16) -> Self {
        Self::with_options(
            number,
            ControllerOptions { max_subchannels, ..ControllerOptions::default() },
        )
    }

    /// As [`ScsiController::new`], with a say in everything.
    pub fn with_options(number: u32, options: ControllerOptions) -> Self {
        Self::with_routing(number, options, Routing::Scsi)
    }

    /// As [`ScsiController::with_options`], for disks that are found elsewhere.
    pub(crate) fn with_routing(number: u32, options: ControllerOptions, routing: Routing) -> Self {
        let inner = Controller {
            number,
            max_subchannels: options.max_subchannels,
            workers: Workers::new(format!("scsi{}", number % 10_000), options.workers),
            routing,
            luns: Mutex::new([const { None }; MAX_LUNS]),
            removed: Mutex::default(),
            generation: AtomicU64::new(0),
            notices: AtomicU64::new(0),
            negotiation: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Puts a disk at `lun`. A guest that runs is told to look.
    ///
    /// # Errors
    /// [`AddDiskError`].
    pub fn add_disk(
        &self,
        lun: u8,
        backend: Arc<dyn Backend>,
        options: DiskOptions,
    ) -> Result<(), AddDiskError> {
        self.inner.add(lun, Lun::disk(self.inner.number, lun, backend, options)?)
    }

    /// Takes the disk or drive at `lun` away: requests that were begun are finished, later ones
    /// find no disk. A guest that runs is told to look. False when there was none. The image
    /// stays open until the last request is finished.
    pub fn remove_disk(&self, lun: u8) -> bool {
        let take = |luns: &mut Luns| {
            let lun = luns.get_mut(usize::from(lun)).and_then(Option::take).ok_or(())?;
            let mut removed = self.inner.removed();
            removed.retain(|lun| lun.strong_count() != 0);
            removed.push(Arc::downgrade(&lun));
            Ok::<_, ()>(())
        };
        self.inner.change(take).is_ok()
    }

    /// Tells guests that the disk at `lun` has `capacity` bytes now. Its backend must serve them
    /// already. False when there is no disk.
    pub fn resize_disk(&self, lun: u8, capacity: u64) -> bool {
        self.inner
            .change(|luns| {
                let lun = luns.get(usize::from(lun)).and_then(Option::as_ref).ok_or(())?;
                lun.unit.disk().ok_or(())?.resize(capacity);
                Ok::<_, ()>(())
            })
            .is_ok()
    }

    /// All disks and drives, by LUN.
    pub fn disks(&self) -> Vec<DiskReport> {
        self.inner.luns().iter().flatten().map(|lun| lun.report(&self.inner)).collect()
    }

    /// What was taken away and still has requests in flight, the longest gone first.
    pub fn removed_disks(&self) -> Vec<DiskReport> {
        let removed = self.inner.removed();
        let reports = removed.iter().filter_map(Weak::upgrade).map(|lun| lun.report(&self.inner));
        let reports = reports.map(|report| DiskReport { removed: true, ..report });
        reports.filter(|report| report.stats.in_flight != 0).collect()
    }

    /// Makes every completed write of every disk durable, and waits for it: the last thing before a
    /// machine ends.
    ///
    /// # Errors
    /// The first disk that failed, after all were tried.
    pub fn flush(&self) -> Result<(), FlushError> {
        let luns: Vec<_> = self.inner.luns().iter().flatten().cloned().collect();
        let mut first = Ok(());
        for lun in luns {
            let flushed = lun.backend.as_ref().map_or(Ok(()), |backend| block::flush(&**backend));
            if let Err(error) = flushed {
                first = first.and(Err(FlushError { lun: lun.number, error }));
            }
        }
        first
    }

    /// The controller's instance GUID: the same on every boot.
    pub fn instance(&self) -> Guid {
        Guid::from_bytes(derive_guid(&[
            b"synthvm scsi controller",
            &self.inner.number.to_le_bytes(),
        ]))
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

impl Device for ScsiController {
    fn offer(&self) -> Offer {
        Offer::new(SCSI_CONTROLLER, self.instance(), self.inner.number)
    }

    /// A worker opens queues of its disks' images before it runs, and their rings. Inline, that is
    /// the caller's business.
    fn open_blocks(&self) -> bool {
        self.inner.inline().is_none()
    }

    fn open(&mut self, channel: Channel) -> Result<(), OpenError> {
        let is_primary = channel.subchannel() == 0;
        let negotiation = {
            let mut current = self.inner.negotiation.lock().unwrap_or_else(PoisonError::into_inner);
            if is_primary {
                // A new one each time: a worker of the last session that is still closing must not
                // see this one's progress.
                *current = Arc::default();
                self.inner.unlock_trays();
            }
            Arc::clone(&current)
        };
        let session = Session::new(negotiation, is_primary, self.inner.max_subchannels);
        let handler = StorageHandler::new(Arc::clone(&self.inner), session, &channel);
        self.inner
            .workers
            .start(channel, handler)
            .map_err(|error| OpenError(format!("cannot start a storage worker: {error}")))
    }

    fn pause(&mut self) {
        self.inner.workers.pause();
    }

    fn resume(&mut self) {
        self.inner.workers.resume();
    }

    fn save(&mut self, subchannel: u16) -> Option<Vec<u8>> {
        self.save_channel(subchannel)
    }

    fn restore(&mut self, channel: Channel, state: &[u8]) -> Result<(), OpenError> {
        self.restore_channel(channel, state)
    }
}

impl Controller {
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Where its disks are.
    pub(crate) fn routing(&self) -> Routing {
        self.routing
    }

    /// Returns the workers that serve the channels if no threads do.
    pub(crate) fn inline(&self) -> Option<&InlineWorkers> {
        self.workers.options().inline.as_ref()
    }

    /// Returns the interrupts that were delayed so far.
    pub(crate) fn moderated(&self) -> u64 {
        self.workers.moderated()
    }

    /// Rises with each change of the LUNs.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn luns(&self) -> MutexGuard<'_, Luns> {
        self.luns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn removed(&self) -> MutexGuard<'_, Vec<Weak<Lun>>> {
        self.removed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rises with each change of the LUNs that guests must be notified of; never later than
    /// [`Controller::generation`] does.
    pub(crate) fn notices(&self) -> u64 {
        self.notices.load(Ordering::Acquire)
    }

    fn add(&self, lun: u8, new: Lun) -> Result<(), AddDiskError> {
        self.change(|luns| {
            let place = luns.get_mut(usize::from(lun)).ok_or(AddDiskError::NoSuchLun(lun))?;
            if place.is_some() {
                return Err(AddDiskError::LunInUse(lun));
            }
            *place = Some(Arc::new(new));
            Ok(())
        })
    }

    /// Changes the LUNs; unless that fails, every worker looks at them anew, and guests are told
    /// to.
    fn change<E>(&self, change: impl FnOnce(&mut Luns) -> Result<(), E>) -> Result<(), E> {
        self.exchange(|luns| {
            change(luns)?;
            self.notices.fetch_add(1, Ordering::AcqRel);
            Ok(())
        })
    }

    /// As [`Controller::change`], for what guests find out by themselves.
    fn exchange<E>(&self, change: impl FnOnce(&mut Luns) -> Result<(), E>) -> Result<(), E> {
        let mut luns = self.luns();
        // Keeps what is removed until the lock is released: closing an image may take its time.
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
}
