//! A synthetic SCSI controller: one device on the bus, up to 64 disks and DVD drives behind it.

mod dvd;
mod quiesce;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmbus_device::WorkerOptions;
use vmbus_host::{Channel, Device, Offer, OpenError};
use vmbus_protocol::Guid;

use crate::channel::StorageHandler;
use crate::error::{AddDiskError, FlushError};
use crate::lun::{DiskOptions, DiskReport, Lun};
use crate::lun_set::LunSet;
use crate::protocol::{Negotiation, Routing, Session};
use synthvm_block::{self as block, Backend};
use synthvm_scsi::derive_guid;

/// {ba6163d9-04a1-4d29-b605-72e2ffb1dc7f}: the class of SCSI controllers.
pub const SCSI_CONTROLLER: Guid =
    Guid::new(0xba61_63d9, 0x04a1, 0x4d29, [0xb6, 0x05, 0x72, 0xe2, 0xff, 0xb1, 0xdc, 0x7f]);

/// A SCSI controller. Clones are handles to the same one: give one to the bus, keep another to add
/// disks and to ask for reports.
#[derive(Clone, Debug)]
pub struct ScsiController {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    luns: Arc<LunSet>,
    max_subchannels: u16,
    /// Of the primary channel that was opened last.
    negotiation: Mutex<Arc<Negotiation>>,
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
        let inner = Inner {
            luns: Arc::new(LunSet::new(number, options.workers, routing)),
            max_subchannels: options.max_subchannels,
            negotiation: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Adds a disk at `lun`. A running guest is notified.
    ///
    /// # Errors
    /// [`AddDiskError`].
    pub fn add_disk(
        &self,
        lun: u8,
        backend: Arc<dyn Backend>,
        options: DiskOptions,
    ) -> Result<(), AddDiskError> {
        let luns = &self.inner.luns;
        luns.add(lun, Lun::disk(luns.number(), lun, backend, options)?)
    }

    /// Takes the disk or drive at `lun` away: requests that were begun are finished, later ones
    /// find no disk. A running guest is notified. Returns false if there was none. The image
    /// stays open until the last request is finished.
    pub fn remove_disk(&self, lun: u8) -> bool {
        self.inner.luns.remove(lun)
    }

    /// Tells guests that the disk at `lun` has `capacity` bytes now. Its backend must serve them
    /// already. False when there is no disk.
    pub fn resize_disk(&self, lun: u8, capacity: u64) -> bool {
        self.inner
            .luns
            .change(|luns| {
                let lun = luns.get(usize::from(lun)).and_then(Option::as_ref).ok_or(())?;
                lun.unit.disk().ok_or(())?.resize(capacity);
                Ok::<_, ()>(())
            })
            .is_ok()
    }

    /// All disks and drives, by LUN.
    pub fn disks(&self) -> Vec<DiskReport> {
        self.inner.luns.reports()
    }

    /// Returns the disks that were removed and still have requests in flight, in order of removal.
    pub fn removed_disks(&self) -> Vec<DiskReport> {
        self.inner.luns.removed_reports()
    }

    /// Makes every completed write of every disk durable, and waits for it: the last thing before a
    /// machine ends.
    ///
    /// # Errors
    /// The first disk that failed, after all were tried.
    pub fn flush(&self) -> Result<(), FlushError> {
        let luns: Vec<_> = self.inner.luns.luns().iter().flatten().cloned().collect();
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
            &self.inner.luns.number().to_le_bytes(),
        ]))
    }
}

impl Device for ScsiController {
    fn offer(&self) -> Offer {
        Offer::new(SCSI_CONTROLLER, self.instance(), self.inner.luns.number())
    }

    /// A worker opens queues of its disks' images before it runs, and their rings. Inline, that is
    /// the caller's business.
    fn open_blocks(&self) -> bool {
        self.inner.luns.inline().is_none()
    }

    fn open(&mut self, channel: Channel) -> Result<(), OpenError> {
        let is_primary = channel.subchannel() == 0;
        let negotiation = {
            let mut current = self.inner.negotiation();
            if is_primary {
                // A new one each time: a worker of the last session that is still closing must not
                // see this one's progress.
                *current = Arc::default();
                self.inner.luns.unlock_trays();
            }
            Arc::clone(&current)
        };
        let session = Session::new(negotiation, is_primary, self.inner.max_subchannels);
        let handler = StorageHandler::new(Arc::clone(&self.inner.luns), session, &channel);
        self.inner
            .luns
            .workers()
            .start(channel, handler)
            .map_err(|error| OpenError(format!("cannot start a storage worker: {error}")))
    }

    fn pause(&mut self) {
        self.inner.luns.workers().pause();
    }

    fn resume(&mut self) {
        self.inner.luns.workers().resume();
    }

    fn save(&mut self, subchannel: u16) -> Option<Vec<u8>> {
        self.save_channel(subchannel)
    }

    fn restore(&mut self, channel: Channel, state: &[u8]) -> Result<(), OpenError> {
        self.restore_channel(channel, state)
    }
}

impl Inner {
    fn negotiation(&self) -> MutexGuard<'_, Arc<Negotiation>> {
        self.negotiation.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
