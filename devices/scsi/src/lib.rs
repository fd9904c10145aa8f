//! A SCSI target without I/O, threads or bus: CDB in, decision out.
//!
//! * [`LogicalUnit`]: a disk or a DVD drive, as an initiator addresses it.
//! * [`Command`]: a CDB, parsed once; no later code reads its bytes again.
//! * [`Disk`]: decides a command: an answer, an I/O, a flush or a refusal.
//! * [`DvdDrive`]: decides the commands of a DVD drive, whose discs can be exchanged.
//! * [`CheckCondition`] and [`Sense`]: a refusal, in the guest's terms; [`condition`] converts the
//!   failures of a backend.
//! * [`SavedUnit`]: the state that another process needs to resume with the same unit.
//!
//! Numbers in CDBs and SCSI data are big-endian. Source: SPC-3/SBC-3 as summarised in spec storvsc
//! sections 5.1, 6 and 7.

mod absent;
mod capacity;
mod cdb;
mod decision;
mod disk;
mod dvd;
mod failure;
mod fields;
mod identity;
mod inquiry;
mod limits;
mod luns;
mod mode;
mod opcode;
mod provisioning;
mod reservation;
mod saved;
mod sense;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod unit;
mod verify;
mod vpd;

pub use absent::execute_absent;
pub use cdb::{Command, ModeForm, PageControl};
/// Types of other crates that this crate's signatures use.
pub use synthvm_block::{BlockSize, Discard, Extent, Geometry, IoError, Operation};

pub use decision::{Decision, Expected, Io, Job, LbaQuery, Parameters, Range, Transfer};
pub use disk::{Disk, DiskTooSmall};
pub use dvd::{DVD_BLOCK, Disc, DvdDrive, TrayLocked, TrayReport};
pub use failure::condition;
pub use identity::{DiskIdentity, derive_guid};
pub use luns::report_luns;
pub use provisioning::lba_status;
pub use reservation::{ReserveIn, ReserveOut};
pub use saved::{SavedDisk, SavedTray, SavedUnit};
pub use sense::{Cause, CheckCondition, Sense};
pub use unit::{Cdb, LogicalUnit, UnitKind};
pub use verify::ByteCheck;
