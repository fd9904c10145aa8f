//! A logical unit: a disk, or a DVD drive with the disc whose image its owner holds.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::saved::SavedUnit;
use crate::{
    CheckCondition, Command, DVD_BLOCK, Decision, Disc, Disk, DiskIdentity, DvdDrive, Parameters,
    Transfer, TrayReport,
};

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

/// A logical unit without its backend.
#[derive(Debug)]
pub enum LogicalUnit {
    /// A disk.
    Disk(Disk),
    /// A DVD drive.
    Dvd {
        /// The drive, shared by all discs that were ever in it.
        drive: Arc<DvdDrive>,
        /// The disc whose image the owner of this unit holds.
        disc: Option<Disc>,
    },
}

/// A command in the form in which an initiator sent it.
#[derive(Clone, Copy, Debug)]
pub struct Cdb<'a> {
    /// The command descriptor block, padded with zeroes.
    pub bytes: &'a [u8; 16],
    /// Bytes of the CDB that the initiator sent: 0..=16.
    pub length: u8,
    /// The data phase of the command.
    pub transfer: Transfer,
}

impl LogicalUnit {
    /// Decides the command in `cdb`. `parsed` is the result of [`Command::parse`] for it, which the
    /// caller has already inspected. A reply is left in `out`, which must be empty.
    ///
    /// # Errors
    /// The check condition to report; `out` is then empty.
    #[inline]
    pub fn execute(
        &self,
        cdb: Cdb<'_>,
        parsed: Result<Command, CheckCondition>,
        out: &mut Vec<u8>,
    ) -> Result<Decision, CheckCondition> {
        match self {
            Self::Disk(disk) => disk.execute(parsed?, cdb.transfer, out),
            Self::Dvd { drive, disc } => {
                drive.execute(cdb.bytes, cdb.length, *disc, cdb.transfer, out)
            }
        }
    }

    /// Decides a command with its parameter list, after [`Decision::Parameters`].
    ///
    /// # Errors
    /// The check condition to report.
    pub fn parameters(&self, of: Parameters, list: &[u8]) -> Result<Decision, CheckCondition> {
        match self {
            Self::Disk(disk) => disk.parameters(of, list),
            Self::Dvd { drive, .. } => drive.parameters(of, list),
        }
    }

    /// Returns the disk. `None` for a drive.
    pub fn disk(&self) -> Option<&Disk> {
        match self {
            Self::Disk(disk) => Some(disk),
            Self::Dvd { .. } => None,
        }
    }

    /// Returns the kind of the unit.
    pub fn kind(&self) -> UnitKind {
        match self {
            Self::Disk(_) => UnitKind::Disk,
            Self::Dvd { .. } => UnitKind::Dvd,
        }
    }

    /// Returns the names by which guests recognise the unit.
    pub fn identity(&self) -> &DiskIdentity {
        match self {
            Self::Disk(disk) => disk.identity(),
            Self::Dvd { drive, .. } => drive.identity(),
        }
    }

    /// Returns the bytes that the guest sees: 0 for a drive without a disc.
    pub fn capacity(&self) -> u64 {
        match self {
            Self::Disk(disk) => disk.capacity(),
            Self::Dvd { disc, .. } => disc.map_or(0, Disc::capacity),
        }
    }

    /// Returns the bytes of a logical block.
    pub fn block_size(&self) -> u32 {
        match self {
            Self::Disk(disk) => disk.block_size().bytes(),
            Self::Dvd { .. } => DVD_BLOCK,
        }
    }

    /// Returns whether writes are refused.
    pub fn is_read_only(&self) -> bool {
        self.disk().is_none_or(Disk::is_read_only)
    }

    /// Returns the state of the tray. `None` for a disk, which has none.
    pub fn tray(&self) -> Option<TrayReport> {
        match self {
            Self::Disk(_) => None,
            Self::Dvd { drive, .. } => Some(drive.report()),
        }
    }

    /// Returns the state that another process needs to resume with this unit.
    pub fn save(&self) -> SavedUnit {
        match self {
            Self::Disk(disk) => SavedUnit::Disk(disk.saved()),
            Self::Dvd { drive, .. } => SavedUnit::Dvd(drive.saved()),
        }
    }

    /// Checks that this unit can resume from `saved`.
    ///
    /// # Errors
    /// The difference that the guest would notice.
    pub fn check(&self, saved: &SavedUnit) -> Result<(), &'static str> {
        match (self, saved) {
            (Self::Disk(disk), SavedUnit::Disk(saved)) => disk.check(saved),
            (Self::Dvd { .. }, SavedUnit::Dvd(_)) => Ok(()),
            _ => Err("one of the two is a DVD drive"),
        }
    }

    /// Resumes from `saved`, for which [`LogicalUnit::check`] has succeeded.
    pub fn restore(&self, saved: &SavedUnit) {
        match (self, saved) {
            (Self::Disk(disk), SavedUnit::Disk(saved)) => disk.restore(saved),
            (Self::Dvd { drive, .. }, SavedUnit::Dvd(saved)) => drive.restore(saved),
            _ => {}
        }
    }
}
