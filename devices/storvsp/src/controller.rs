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

/// A SCSI controller. Clones are handles to the same controller: the bus gets one, and its owner
/// keeps another to add disks and to ask for reports.
#[derive(Clone, Debug)]
pub struct ScsiController {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    luns: Arc<LunSet>,
    max_subchannels: u16,
    /// The negotiation of the current session. Each open of the primary channel replaces it.
    negotiation: Mutex<Arc<Negotiation>>,
}

/// Options of a controller.
#[derive(Clone, Debug, Default)]
pub struct ControllerOptions {
    /// Maximum number of channels beside the primary. Linux asks for one less than it has vCPUs.
    /// Default: 0.
    pub max_subchannels: u16,
    /// Options of the workers that serve the channels.
    pub workers: WorkerOptions,
}

impl ScsiController {
    /// Returns controller `number` of a machine. The order of its offer and its instance GUID
    /// follow from the number. Guests may open up to `max_subchannels` channels beside the primary.
    pub fn new(number: u32, max_subchannels: u16) -> Self {
        Self::with_options(
            number,
            ControllerOptions { max_subchannels, ..ControllerOptions::default() },
        )
    }

    /// Returns a controller with all options.
    pub fn with_options(number: u32, options: ControllerOptions) -> Self {
        Self::with_routing(number, options, Routing::Scsi)
    }

    /// Returns a controller with another address scheme for its disks.
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
    /// See [`AddDiskError`].
    pub fn add_disk(
        &self,
        lun: u8,
        backend: Arc<dyn Backend>,
        options: DiskOptions,
    ) -> Result<(), AddDiskError> {
        let luns = &self.inner.luns;
        luns.add(lun, Lun::disk(luns.number(), lun, backend, options)?)
    }

    /// Removes the disk or drive at `lun`. Returns false if there is none. Requests in progress are
    /// finished; later ones fail, as the LUN is absent. A running guest is notified. The backend
    /// stays open until the last request has ended.
    pub fn remove_disk(&self, lun: u8) -> bool {
        self.inner.luns.remove(lun)
    }

    /// Sets the capacity of the disk at `lun` to `capacity` bytes and notifies the guest. The
    /// backend must already serve them. Returns false if there is no disk.
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

    /// Returns reports of all disks and drives, in order of LUN.
    pub fn disks(&self) -> Vec<DiskReport> {
        self.inner.luns.reports()
    }

    /// Returns reports of removed disks with requests in flight, in order of removal.
    pub fn removed_disks(&self) -> Vec<DiskReport> {
        self.inner.luns.removed_reports()
    }

    /// Makes every completed write of every disk durable. Blocks until then. To be called before
    /// the machine ends.
    ///
    /// # Errors
    /// The error of the first disk that failed. All disks are tried.
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

    /// Returns the controller's instance GUID, which is the same on every boot.
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

    /// Returns true: a worker opens the queues of its backends before it runs. With inline workers
    /// the caller accepts that the call blocks.
    fn open_blocks(&self) -> bool {
        self.inner.luns.inline().is_none()
    }

    fn open(&mut self, channel: Channel) -> Result<(), OpenError> {
        let is_primary = channel.subchannel() == 0;
        let negotiation = {
            let mut current = self.inner.negotiation();
            if is_primary {
                // A fresh negotiation: a worker of the last session may still be closing, and must
                // not see the progress of this one.
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
