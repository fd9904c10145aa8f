//! A synthetic SCSI controller: one device on the bus, up to 64 disks and DVD drives behind it.

mod dvd;
mod standstill;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use vmbus_host::{Channel, Device, Offer, OpenError};
use vmbus_log::LogRateLimiter;
use vmbus_protocol::Guid;
use vmm_sys_util::eventfd::EventFd;

use crate::lun::{AddDiskError, DiskOptions, DiskReport, Lun};
use crate::protocol::{MAX_LUNS, Negotiation, Routing, Session};
use crate::worker::{self, InlineWorkers};
use standstill::Standstill;
use synthvm_block::{self as block, Backend, IoError};
use synthvm_scsi::derive_guid;

/// {ba6163d9-04a1-4d29-b605-72e2ffb1dc7f}: the class of SCSI controllers.
pub const SCSI_CONTROLLER: Guid =
    Guid::new(0xba61_63d9, 0x04a1, 0x4d29, [0xb6, 0x05, 0x72, 0xe2, 0xff, 0xb1, 0xdc, 0x7f]);

/// A SCSI controller. Clones are handles to the same one: give one to the bus, keep another to add disks and to ask for reports.
#[derive(Clone, Debug)]
pub struct ScsiController {
    inner: Arc<Controller>,
}

/// What a user may choose for a controller.
#[derive(Clone, Debug)]
pub struct ControllerOptions {
    /// Channels that guests may open beside the primary; one less than there are vCPUs is what Linux asks for. Default: none.
    pub max_subchannels: u16,
    /// Serve the channels when these are told to, instead of in a thread for each. Default: threads.
    pub inline: Option<InlineWorkers>,
    /// How long a thread may look for more before it sleeps; it does so only while that pays. Zero: never. Default, and at most: 50 us.
    pub poll_limit: Duration,
    /// How long a pause waits at most for requests that are on an image. Default: 10 s.
    pub pause_limit: Duration,
    /// Let a thread hold back the interrupt that tells the guest of completions, for 2 ms at most and usually far less, while many requests are
    /// in flight and that makes them finish faster. Default: yes.
    pub hold_back: bool,
}

impl Default for ControllerOptions {
    fn default() -> Self {
        Self {
            max_subchannels: 0,
            inline: None,
            poll_limit: worker::MAX_POLL,
            hold_back: true,
            pause_limit: worker::MAX_PAUSE,
        }
    }
}

pub use dvd::DvdError;
pub(crate) use standstill::{Parked, Presence};

/// Disks and drives by LUN.
type Luns = [Option<Arc<Lun>>; MAX_LUNS];

/// What the workers of all channels share.
#[derive(Debug)]
pub(crate) struct Controller {
    number: u32,
    options: ControllerOptions,
    routing: Routing,
    luns: Mutex<Luns>,
    /// Those that were taken away; they live as long as a worker has requests on them.
    removed: Mutex<Vec<Weak<Lun>>>,
    /// Rises with each change of `luns`, so that workers look only then.
    generation: AtomicU64,
    /// Rises with those of them that a guest must be told of.
    news: AtomicU64,
    /// Of the primary channel that was opened last.
    negotiation: Mutex<Arc<Negotiation>>,
    /// One per living worker: wakes it to look at the above.
    kicks: Mutex<Vec<Weak<EventFd>>>,
    standstill: Standstill,
    /// Interrupts that were held back.
    held_back: AtomicU64,
    /// Keeps a guest that breaks its channels from filling the log.
    pub(crate) faults: LogRateLimiter,
}

impl ScsiController {
    /// Controller `number` of the machine, whose place among its controllers and whose instance GUID follow from it. Guests may open
    /// up to `max_subchannels` channels beside the primary.
    pub fn new(number: u32, max_subchannels: u16) -> Self {
        Self::with_options(number, ControllerOptions { max_subchannels, ..ControllerOptions::default() })
    }

    /// As [`ScsiController::new`], with a say in everything.
    pub fn with_options(number: u32, options: ControllerOptions) -> Self {
        Self::with_routing(number, options, Routing::Scsi)
    }

    /// As [`ScsiController::with_options`], for disks that are found elsewhere.
    pub(crate) fn with_routing(number: u32, options: ControllerOptions, routing: Routing) -> Self {
        let inner = Controller {
            number,
            options,
            routing,
            luns: Mutex::new([const { None }; MAX_LUNS]),
            removed: Mutex::default(),
            generation: AtomicU64::new(0),
            news: AtomicU64::new(0),
            negotiation: Mutex::default(),
            kicks: Mutex::default(),
            standstill: Standstill::default(),
            held_back: AtomicU64::new(0),
            faults: LogRateLimiter::default(),
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

    /// Takes the disk or drive at `lun` away: requests that were begun are finished, later ones find no disk. A guest that runs is told to look.
    /// False when there was none. The image stays open until the last request is finished.
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

    /// Tells guests that the disk at `lun` has `capacity` bytes now. Its backend must serve them already. False when there is no disk.
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

    /// Makes every completed write of every disk durable, and waits for it: the last thing before a machine ends.
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
        Guid::from_bytes(derive_guid(&[b"synthvm scsi controller", &self.inner.number.to_le_bytes()]))
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

    /// A worker opens queues of its disks' images before it runs, and their rings. Inline, that is the caller's business.
    fn open_blocks(&self) -> bool {
        self.inner.options.inline.is_none()
    }

    fn open(&mut self, channel: Channel) -> Result<(), OpenError> {
        let is_primary = channel.subchannel() == 0;
        let negotiation = {
            let mut current = self.inner.negotiation.lock().unwrap_or_else(PoisonError::into_inner);
            if is_primary {
                // A new one each time: a worker of the last session that is still closing must not see this one's progress.
                *current = Arc::default();
                self.inner.unlock_trays();
            }
            Arc::clone(&current)
        };
        let session = Session::new(negotiation, is_primary, self.inner.options.max_subchannels);
        worker::start(Arc::clone(&self.inner), session, channel, None)
            .map_err(|error| OpenError(format!("cannot start a storage worker: {error}")))
    }

    fn pause(&mut self) {
        self.stand_still();
    }

    fn resume(&mut self) {
        self.go_on();
    }

    fn save(&mut self, subchannel: u16) -> Option<Vec<u8>> {
        self.write_down(subchannel)
    }

    fn restore(&mut self, channel: Channel, state: &[u8]) -> Result<(), OpenError> {
        self.take_over(channel, state)
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

    /// Who serves the channels if no threads do.
    pub(crate) fn inline(&self) -> Option<&InlineWorkers> {
        self.options.inline.as_ref()
    }

    /// How long a worker may look for more before it sleeps. One that is served inline has no thread to sleep.
    pub(crate) fn poll_limit(&self) -> Duration {
        if self.options.inline.is_some() { Duration::ZERO } else { self.options.poll_limit }
    }

    /// Whether a worker's thread may hold back interrupts.
    pub(crate) fn holds_back(&self) -> bool {
        self.options.hold_back
    }

    /// An interrupt is held back now.
    pub(crate) fn hold_back(&self) {
        self.held_back.fetch_add(1, Ordering::Relaxed);
    }

    /// Interrupts that were held back so far.
    pub(crate) fn held_back(&self) -> u64 {
        self.held_back.load(Ordering::Relaxed)
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

    /// Rises with each change of the LUNs that guests must be told of; never later than [`Controller::generation`] does.
    pub(crate) fn news(&self) -> u64 {
        self.news.load(Ordering::Acquire)
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

    /// Changes the LUNs; unless that fails, every worker looks at them anew, and guests are told to.
    fn change<E>(&self, change: impl FnOnce(&mut Luns) -> Result<(), E>) -> Result<(), E> {
        self.exchange(|luns| {
            change(luns)?;
            self.news.fetch_add(1, Ordering::AcqRel);
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

    /// Registers a worker.
    pub(crate) fn register(&self, kick: &Arc<EventFd>) {
        let mut kicks = self.kicks.lock().unwrap_or_else(PoisonError::into_inner);
        kicks.retain(|kick| kick.strong_count() > 0);
        kicks.push(Arc::downgrade(kick));
    }

    /// Wakes all workers: something they share has changed.
    pub(crate) fn kick(&self) {
        let kicks = self.kicks.lock().unwrap_or_else(PoisonError::into_inner);
        for kick in kicks.iter().filter_map(Weak::upgrade) {
            // A full counter wakes as well.
            let _ = kick.write(1);
        }
    }
}
