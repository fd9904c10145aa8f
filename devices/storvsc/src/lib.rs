//! The packets of Hyper-V's synthetic SCSI controller (storvsc), which its two ends share: the host
//! (`synthvm-storvsp`) and the driver in firmware (`uefi-vmbus`). `no_std`, no unsafe.
//!
//! All integers are little-endian; sizes and offsets are bytes. Facts: storvsc sections 2 to 4.
#![no_std]
#![forbid(unsafe_code)]

mod packet;
mod version;

pub mod scsi;
pub mod srb;

pub use packet::{
    CDB_LEN, ExecuteSrb, HEADER, Header, MAX_PACKET, Properties, SENSE_LEN, ScsiExtension,
    ScsiRequest, V1_PACKET, VersionPayload, direction, flags, operation,
};
pub use version::Version;
