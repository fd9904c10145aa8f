//! What a SCSI disk means, without any I/O: CDB in, decision out.
//!
//! * [`Command`]: a CDB, parsed once; nothing later looks at its bytes again.
//! * [`Disk`]: decides what a command comes to: an answer, an I/O, a flush, a refusal.
//! * [`CheckCondition`] and [`Sense`]: how a refusal is worded.
//!
//! Numbers in CDBs and SCSI data are big-endian. Source: SPC-3/SBC-3 as summed up in spec storvsc sections 5.1, 6 and 7.

mod absent;
mod capacity;
mod cdb;
mod disk;
mod identity;
mod inquiry;
mod luns;
mod mode;
mod opcode;
mod sense;
#[cfg(test)]
mod tests;
mod vpd;

pub use absent::execute_absent;
pub use cdb::{Command, ModeForm, PageControl};
pub use disk::{BlockSize, Decision, Disk, DiskConfig, DiskConfigError, Io, IoKind, Parameters, Transfer};
pub use identity::DiskIdentity;
pub(crate) use identity::derive_guid;
pub use luns::report_luns;
pub use sense::{Cause, CheckCondition, Sense};
