//! What a logical unit means: a disk, or a DVD drive with the disc that this worker can reach.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::backend::Backend;
use crate::scsi::{
    CheckCondition, Command, DVD_BLOCK, Decision, Disc, Disk, DiskIdentity, DvdDrive, Parameters, TrayReport,
};
use crate::storvsp::Srb;

/// Kind of a logical unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnitKind {
    /// A disk.
    #[default]
    Disk,
    /// A DVD drive.
    Dvd,
}

#[derive(Debug)]
pub(crate) enum Unit {
    Disk(Disk),
    Dvd {
        /// Shared by all discs that were ever in it.
        drive: Arc<DvdDrive>,
        /// The one whose image this unit holds.
        disc: Option<Disc>,
    },
}

impl Unit {
    /// Decides `srb`'s command, which `parsed` is as a disk reads it. Answers go into `out`.
    pub(crate) fn execute(
        &self,
        srb: &Srb,
        parsed: Result<Command, CheckCondition>,
        out: &mut Vec<u8>,
    ) -> Result<Decision, CheckCondition> {
        match self {
            Self::Disk(disk) => disk.execute(parsed?, srb.transfer, out),
            Self::Dvd { drive, disc } => drive.execute(&srb.cdb, srb.cdb_length, *disc, srb.transfer, out),
        }
    }

    /// Judges a parameter list.
    pub(crate) fn parameters(&self, of: Parameters, list: &[u8]) -> Result<Decision, CheckCondition> {
        match self {
            Self::Disk(disk) => disk.parameters(of, list),
            Self::Dvd { drive, .. } => drive.parameters(of, list),
        }
    }

    pub(crate) fn disk(&self) -> Option<&Disk> {
        match self {
            Self::Disk(disk) => Some(disk),
            Self::Dvd { .. } => None,
        }
    }

    pub(crate) fn identity(&self) -> &DiskIdentity {
        match self {
            Self::Disk(disk) => disk.identity(),
            Self::Dvd { drive, .. } => drive.identity(),
        }
    }

    /// Bytes that the guest sees; 0 for a drive without a disc.
    pub(crate) fn capacity(&self) -> u64 {
        match self {
            Self::Disk(disk) => disk.capacity(),
            Self::Dvd { disc, .. } => disc.map_or(0, Disc::capacity),
        }
    }

    pub(crate) fn block_size(&self) -> u32 {
        match self {
            Self::Disk(disk) => disk.block_size().bytes(),
            Self::Dvd { .. } => DVD_BLOCK,
        }
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.disk().is_none_or(Disk::is_read_only)
    }

    /// What the tray does; `None` for a disk, which has none.
    pub(crate) fn tray(&self) -> Option<TrayReport> {
        match self {
            Self::Disk(_) => None,
            Self::Dvd { drive, .. } => Some(drive.report()),
        }
    }
}

/// A queue that cannot be had now will not be had when the guest opens the channel.
pub(crate) fn check_queue(backend: &Arc<dyn Backend>) -> std::io::Result<()> {
    backend.queue().map(drop)
}
