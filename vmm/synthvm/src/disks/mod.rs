//! A machine's disks: from the configuration to units on SCSI controllers, before and while the
//! machine runs.

mod error;
mod host;
mod medium;
mod memory;
mod removal;
mod set;
mod table;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use error::DiskError;
pub use set::DiskSet;
