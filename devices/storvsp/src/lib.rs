//! storvsp: Hyper-V's synthetic SCSI controller on the VMBus.
//!
//! | module | knowledge |
//! |---|---|
//! | [`protocol`] | the packets on the channel: packet in, action out. No I/O |
//! | `lun`, `lun_set` | a logical unit with backend and counters; the set of a controller |
//! | [`controller`](ScsiController) | the device on the bus: sessions, drives, save and restore |
//! | [`ide`](IdeDisk) | the same for one disk behind an IDE controller |
//! | `channel` | the handler of an open channel, which joins protocol, target and backends |
//!
//! The meaning of a command is in [`synthvm_scsi`], image files are behind
//! [`synthvm_block::Backend`]. A request's data never passes through this crate: the guest's pages
//! become iovecs, and the backend moves the bytes.

mod channel;
mod controller;
mod counters;
mod error;
mod helper;
mod ide;
mod lun;
mod lun_set;
pub mod protocol;
mod saved;

pub use controller::{ControllerOptions, SCSI_CONTROLLER, ScsiController};
pub use counters::DiskStats;
pub use error::{AddDiskError, DvdError, FlushError};
pub use ide::{IDE_DISK, IdeDisk, IdePlace};
pub use lun::{DiskOptions, DiskReport};
pub use synthvm_scsi::UnitKind;
pub use vmbus_device::{InlineWorkers, WorkerOptions};
