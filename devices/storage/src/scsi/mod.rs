//! What a SCSI disk or DVD drive means, without any I/O: CDB in, decision out.
//!
//! * [`Command`]: a CDB, parsed once; nothing later looks at its bytes again.
//! * [`Disk`]: decides what a command comes to: an answer, an I/O, a flush, a refusal.
//! * [`DvdDrive`]: the same for a DVD drive, whose discs come and go.
//! * [`CheckCondition`] and [`Sense`]: how a refusal is worded.
//!
//! Numbers in CDBs and SCSI data are big-endian. Source: SPC-3/SBC-3 as summed up in spec storvsc sections 5.1, 6 and 7.

mod absent;
mod capacity;
mod cdb;
mod decision;
mod disk;
mod dvd;
mod fields;
mod identity;
mod inquiry;
mod limits;
mod luns;
mod mode;
mod opcode;
mod provisioning;
mod reservation;
mod sense;
#[cfg(test)]
mod tests;
mod verify;
mod vpd;

pub use absent::execute_absent;
pub use cdb::{Command, ModeForm, PageControl};
pub use decision::{Decision, Expected, Io, IoKind, Job, LbaQuery, Parameters, Range, Transfer};
pub use disk::{BlockSize, Disk, DiskConfig, DiskConfigError};
pub use dvd::{DVD_BLOCK, Disc, DvdDrive, TrayLocked, TrayReport};
pub use identity::DiskIdentity;
pub(crate) use identity::derive_guid;
pub use luns::report_luns;
pub use provisioning::lba_status;
pub use reservation::{ReserveIn, ReserveOut};
pub use sense::{Cause, CheckCondition, Sense};
pub use verify::ByteCheck;
