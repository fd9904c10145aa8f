//! A machine's disks: from what a user wrote to units on SCSI controllers, before the machine runs
//! and while it does.

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
