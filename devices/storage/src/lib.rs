//! storvsp: Hyper-V's synthetic SCSI controller, the disks behind it and their image files.
pub mod backend;
pub mod scsi;
pub mod storvsp;
#[cfg(test)]
mod testing;
