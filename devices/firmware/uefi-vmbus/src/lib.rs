//! Storage on VMBus for UEFI firmware that knows no VMBus, such as stock OVMF. `no_std` + `alloc`.
//!
//! ```text
//! firmware's SCSI drivers
//!     -> EXT_SCSI_PASS_THRU (main.rs, for UEFI only)
//!         -> Controller (storvsc) -> vmbus_client::Client -> hypercalls, SynIC, rings
//! ```
//!
//! This library has the parts that need no firmware: the storvsc session ([`Controller`]), the
//! search for logical units, and device paths. They are tested against the real storvsp in
//! `vmbus-loopback`. The program `uefi-vmbus` adds the machine and the protocol of the firmware; it
//! is built for `x86_64-unknown-uefi` and delivered as a PCI option ROM.
//!
//! The driver publishes SCSI pass-through instead of block I/O, because the firmware's own disk
//! driver then does what it does for every other controller: capacity, blocks of 4 KiB, media
//! changes, retries by sense data, and the split of large transfers.
//!
//! Source: docs/spec/firmware-windows.md sections A7 and E2, docs/spec/storvsc.md.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod controller;
pub mod device_path;
mod error;
mod luns;
mod outcome;
mod packet;
#[cfg(test)]
mod tests;

pub use controller::{Address, Controller, Data, MAX_TRANSFER, Memory, Request};
pub use error::StorageError;
pub use outcome::{HostAdapter, Outcome};
