//! A logical unit: its SCSI target, its backend, its counters.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde::{Deserialize, Serialize};
use tracing::{error, warn};
use vmbus_log::LogRateLimiter;

use crate::counters::{DiskCounters, DiskStats};
use crate::error::AddDiskError;
use crate::helper::Helper;
use crate::protocol::MAX_TRANSFER;
use crate::saved::{RestoreError, SavedLun};
use synthvm_block::{Backend, IoError, Operation, Queue};
use synthvm_scsi::{
    self as scsi, CheckCondition, Disk, DiskIdentity, LbaQuery, LogicalUnit, UnitKind,
};

/// Options of a disk.
#[derive(Clone, Debug, Default)]
pub struct DiskOptions {
    /// Serial number, which the names under /dev/disk/by-id contain. Default: derived from image,
    /// controller and LUN.
    pub serial: Option<String>,
    /// The disk's name in reports, such as the image's path. Default: empty.
    pub label: String,
}

/// The state of a disk or a drive in a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskReport {
    /// Controller number.
    pub controller: u32,
    /// LUN.
    pub lun: u8,
    /// Disk or DVD drive.
    pub kind: UnitKind,
    /// The unit was removed and still has requests in flight.
    #[serde(default)]
    pub removed: bool,
    /// A disc is in the drive; always true for a disk.
    pub has_medium: bool,
    /// The drive's tray is open; always false for a disk.
    pub tray_open: bool,
    /// The guest has locked the drive's tray; always false for a disk.
    pub locked: bool,
    /// [`DiskOptions::label`], or the label of the disc.
    pub label: String,
    /// Bytes, as the guest sees them; 0 for a drive without a disc.
    pub capacity: u64,
    /// Logical block size in bytes.
    pub block_size: u32,
    /// Writes are refused.
    pub read_only: bool,
    /// Serial number.
    pub serial: String,
    /// System calls that used registered buffers ([`Backend::fixed_calls`]); `None` if the backend
    /// registers none.
    pub fixed_calls: Option<u64>,
    /// Completion interrupts that the moderation delayed, for all disks of the controller.
    #[serde(default)]
    pub held_back: u64,
    /// Counters.
    #[serde(flatten)]
    pub stats: DiskStats,
}

/// A logical unit, shared by the workers of all channels.
#[derive(Debug)]
pub(crate) struct Lun {
    pub(crate) number: u8,
    pub(crate) unit: LogicalUnit,
    /// None for a drive without a disc.
    pub(crate) backend: Option<Arc<dyn Backend>>,
    /// A drive's counters cover all its discs.
    pub(crate) counters: Arc<DiskCounters>,
    /// Runs calls to the backend that may block.
    pub(crate) helper: Helper,
    /// Pending queries to the backend. Reports count them as requests in flight.
    pub(crate) lookups: Arc<AtomicU64>,
    label: String,
    log: Arc<LogRateLimiter>,
}

impl Lun {
    /// Returns a disk.
    pub(crate) fn disk(
        controller: u32,
        number: u8,
        backend: Arc<dyn Backend>,
        options: DiskOptions,
    ) -> Result<Self, AddDiskError> {
        let identity = match &options.serial {
            Some(serial) => DiskIdentity::with_serial(serial)
                .ok_or_else(|| AddDiskError::Serial(serial.clone()))?,
            None => DiskIdentity::derived(&[
                b"synthvm scsi disk",
                backend.identity(),
                &controller.to_le_bytes(),
                &[number],
            ]),
        };
        let disk = Disk::new(identity, backend.geometry(), MAX_TRANSFER)?;
        check_queue(&backend)?;
        Ok(Self::new(number, LogicalUnit::Disk(disk), Some(backend), options.label))
    }

    /// Returns a DVD drive. `unit` must be one.
    pub(crate) fn dvd(
        number: u8,
        unit: LogicalUnit,
        backend: Option<Arc<dyn Backend>>,
        label: String,
    ) -> Self {
        Self::new(number, unit, backend, label)
    }

    fn new(
        number: u8,
        unit: LogicalUnit,
        backend: Option<Arc<dyn Backend>>,
        label: String,
    ) -> Self {
        let (counters, log) = (Arc::<DiskCounters>::default(), Arc::default());
        let (helper, lookups) = (Helper::default(), counters.new_queue());
        Self { number, unit, backend, counters, helper, lookups, label, log }
    }

    /// Returns the same drive with another disc, or without one.
    pub(crate) fn with_disc(
        &self,
        unit: LogicalUnit,
        backend: Option<Arc<dyn Backend>>,
        label: String,
    ) -> Self {
        let (counters, log) = (Arc::clone(&self.counters), Arc::clone(&self.log));
        let (helper, lookups) = (Helper::default(), counters.new_queue());
        Self { number: self.number, unit, backend, counters, helper, lookups, label, log }
    }

    /// Returns a new queue to the backend.
    pub(crate) fn queue(&self) -> Result<Box<dyn Queue>, IoError> {
        let backend = self.backend.as_ref().ok_or(IoError::Os(libc::ENOMEDIUM))?;
        backend.queue().map_err(IoError::from)
    }

    /// Counts and logs a failure of the backend.
    pub(crate) fn failed(&self, operation: Operation, offset: u64, error: IoError) {
        self.counters.failed();
        let (lun, label) = (self.number, &self.label);
        self.log.log(|left_out| {
            warn!(lun, %label, ?operation, offset, %error, left_out, "a disk request failed");
        });
    }

    /// Counts and logs a completion of a request that the backend did not have.
    #[cold]
    pub(crate) fn foreign_completion(&self) {
        self.counters.failed();
        let (lun, label) = (self.number, &self.label);
        self.log.log(|left_out| {
            error!(lun, %label, left_out, "ignored a completion: the backend does not have the \
                request, which is a defect of the backend");
        });
    }

    /// Returns the state that another process needs to resume with this unit.
    pub(crate) fn save(&self) -> SavedLun {
        let serial = self.unit.identity().serial.clone();
        SavedLun { lun: self.number, serial, kind: self.unit.save() }
    }

    /// Checks that this unit can resume from `saved`.
    pub(crate) fn check(&self, saved: &SavedLun) -> Result<(), RestoreError> {
        let differs = |why| RestoreError::Disk { lun: self.number, why };
        if saved.serial != self.unit.identity().serial {
            return Err(differs("its serial number differs"));
        }
        self.unit.check(&saved.kind).map_err(differs)
    }

    /// Resumes from `saved`, for which [`Lun::check`] has succeeded.
    pub(crate) fn restore(&self, saved: &SavedLun) {
        self.unit.restore(&saved.kind);
    }

    /// Answers GET LBA STATUS into `out`. May block, so a storage worker must not call it.
    pub(crate) fn lba_status(
        &self,
        query: LbaQuery,
        out: &mut Vec<u8>,
    ) -> Result<(), CheckCondition> {
        let (Some(backend), Some(disk)) = (&self.backend, self.unit.disk()) else {
            return Err(CheckCondition::INVALID_OPCODE);
        };
        let extent = |offset| backend.extent(offset);
        scsi::lba_status(query, disk.block_size(), extent, out).map_err(|error| {
            out.clear();
            self.failed(Operation::Read, query.range.offset, error);
            scsi::condition(error, Operation::Read)
        })
    }

    /// Returns a report of the unit. The workers of controller `controller` have delayed
    /// `moderated` interrupts.
    pub(crate) fn report(&self, controller: u32, moderated: u64) -> DiskReport {
        let tray = self.unit.tray();
        let state = tray.unwrap_or_default();
        DiskReport {
            controller,
            lun: self.number,
            kind: self.unit.kind(),
            removed: false,
            has_medium: tray.is_none_or(|tray| tray.has_disc),
            tray_open: state.is_open,
            locked: state.is_locked,
            label: self.label.clone(),
            capacity: self.unit.capacity(),
            block_size: self.unit.block_size(),
            read_only: self.unit.is_read_only(),
            serial: self.unit.identity().serial.clone(),
            fixed_calls: self.backend.as_ref().and_then(|backend| backend.fixed_calls()),
            held_back: moderated,
            stats: self.counters.snapshot(),
        }
    }
}

/// Checks that `backend` can open a queue. A failure is reported when the disk is added, not when
/// the guest opens the channel.
///
/// # Errors
/// The system is out of file descriptors, memory or threads.
pub(crate) fn check_queue(backend: &Arc<dyn Backend>) -> io::Result<()> {
    backend.queue().map(drop)
}
