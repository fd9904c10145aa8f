//! storvsp: Hyper-V's synthetic SCSI controller, the disks and DVD drives behind it and their image files.
//!
//! | module | what it knows |
//! |---|---|
//! | [`scsi`] | what a disk or DVD drive means: CDB in, decision out. No I/O |
//! | [`storvsp`] | the protocol on the channel: packet in, action out. No I/O |
//! | [`backend`] | image files: batches of requests in, results out |
//! | [`controller`](ScsiController) | the device on the bus: LUNs, sessions, reports |
//! | [`ide`](IdeDisk) | the same for one disk behind an IDE controller |
//! | `worker` | one thread per open channel, which ties all of that together |
//!
//! A request's data never passes through this crate: the guest's pages become iovecs, and the backend moves the bytes.

// The guest of the integration tests, which unit tests use too, calls this crate by its name.
#[cfg(test)]
extern crate self as synthvm_storage;

pub mod backend;
mod controller;
mod counters;
mod helper;
mod ide;
mod lun;
mod saved;
pub mod scsi;
pub mod storvsp;
mod unit;
mod worker;

pub use controller::{ControllerOptions, DvdError, FlushError, SCSI_CONTROLLER, ScsiController};
pub use counters::DiskStats;
pub use ide::{IDE_DISK, IdeDisk, IdePlace};
pub use lun::{AddDiskError, DiskOptions, DiskReport};
pub use unit::UnitKind;
pub use worker::InlineWorkers;
