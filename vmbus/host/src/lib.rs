//! The VMBus host: a sans-IO state machine and the thin shell that gives it doorbells and interrupts.
//!
//! * [`core`]: events in, actions out. No I/O, no thread, no clock.
//! * [`VmBus`]: the shell. Hand it a machine's [`Synic`], [`VmBus::offer`] it [`Device`]s, and feed it what the guest posts.
//! * [`Channel`]: what a device gets when a guest opens it.
//! * [`mailbox`]: how a machine hands messages over through the slots of its VPs.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::panic
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::panic
    )
)]

mod bus;
pub mod core;
pub mod device;
pub mod inspect;
pub mod mailbox;
pub mod saved;
pub mod synic;

pub use bus::VmBus;
pub use device::{Channel, ChannelHandle, Device, Offer, OfferError, OpenError};
pub use inspect::{BusReport, OpenReport};
pub use saved::{RestoreError, SaveError, SavedBus};
pub use synic::{QueuedMessage, Signal, Synic};
pub use vmbus_gpadl::{ReadOnly, ReadWrite};
pub use vmbus_protocol::offer::HvStatus;
