//! Storage, screen and keyboard on VMBus for UEFI firmware that knows no VMBus, such as stock OVMF.
//! `no_std` + `alloc`.
//!
//! ```text
//! firmware's SCSI drivers
//!     -> EXT_SCSI_PASS_THRU (main.rs, for UEFI only)
//!         -> Controller (storvsc) -> vmbus_client::Client -> hypercalls, SynIC, rings
//! firmware's consoles
//!     -> GRAPHICS_OUTPUT -> Video (synthvid)           -> the same client
//!     -> SIMPLE_TEXT_INPUT(_EX) -> Keyboard, Decoder   -> the same client
//! ```
//!
//! This library has the parts that need no firmware: the sessions ([`Controller`], [`Video`],
//! [`Keyboard`]), the search for logical units, the layout of the keys, device paths, load options
//! ([`load_option`]), and the search for the register by which the driver reports that there is no
//! system to boot ([`boot_status`]). They are tested against the real devices. The program
//! `uefi-vmbus` adds the machine and the protocol of the firmware; it is built for
//! `x86_64-unknown-uefi` and delivered as a PCI option ROM.
//!
//! The driver publishes SCSI pass-through instead of block I/O, because the firmware's own disk
//! driver then does what it does for every other controller: capacity, blocks of 4 KiB, media
//! changes, retries by sense data, and the split of large transfers.
//!
//! Source: docs/spec/firmware-windows.md sections A7 and E2, docs/spec/storvsc.md,
//! docs/spec/hid-video.md.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod boot_status;
mod controller;
pub mod device_path;
mod error;
mod keyboard;
pub mod keys;
pub mod load_option;
mod luns;
mod messages;
mod outcome;
#[cfg(test)]
mod tests;
mod video;

pub use controller::{Address, Controller, Data, MAX_TRANSFER, Memory, Request};
pub use error::{DisplayError, StorageError};
pub use keyboard::{KEYBOARD, KeyEvent, Keyboard};
pub use keys::{Decoder, Key};
pub use outcome::{HostAdapter, Outcome};
pub use video::{Area, PIXEL_BYTES, Resolution, VIDEO, Video};
