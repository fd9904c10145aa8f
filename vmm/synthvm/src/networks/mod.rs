//! The network cards of a machine.
//!
//! [`OpenNetworks::open`] opens all that cards need of the host, before the machine exists: the
//! threads of the devices get descriptors only. [`NetworkSet`] is the cards on the bus.

mod capture;
mod error;
mod open;
mod set;
#[cfg(test)]
mod tests;

pub use error::{NetworkError, OpenError};
pub use open::OpenNetworks;
pub use set::{CardReport, NetworkSet};
