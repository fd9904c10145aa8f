//! storvsp: Hyper-V's synthetic SCSI controller on the VMBus.
//!
//! | module | knowledge |
//! |---|---|
//! | [`protocol`] | the packets on the channel: packet in, action out. No I/O |
//! | [`controller`](ScsiController) | the device on the bus: logical units, sessions, reports |
//! | [`ide`](IdeDisk) | the same for one disk behind an IDE controller |
//! | `channel` | the handler of an open channel, which joins protocol, target and backends |
//!
//! The meaning of a command is in [`synthvm_scsi`], image files are behind
//! [`synthvm_block::Backend`]. A request's data never passes through this crate: the guest's pages
//! become iovecs, and the backend moves the bytes.

mod channel;
mod controller;
mod counters;
mod helper;
mod ide;
mod lun;
pub mod protocol;
mod saved;

pub use controller::{ControllerOptions, DvdError, FlushError, SCSI_CONTROLLER, ScsiController};
pub use counters::DiskStats;
pub use ide::{IDE_DISK, IdeDisk, IdePlace};
pub use lun::{AddDiskError, DiskOptions, DiskReport};
pub use synthvm_scsi::UnitKind;
pub use vmbus_device::{InlineWorkers, WorkerOptions};
