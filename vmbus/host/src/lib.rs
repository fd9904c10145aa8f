//! The VMBus host: a sans-IO state machine and the thin shell that gives it doorbells and
//! interrupts.
//!
//! * [`core`]: events in, actions out. No I/O, no thread, no clock.
//! * [`VmBus`]: the shell. Give it a machine's [`Synic`], [`VmBus::offer`] it [`Device`]s, and pass
//!   it the guest's messages.
//! * [`Channel`]: a channel that a guest has opened, for its device.
//! * [`trace`]: a copy of the traffic.
//! * [`mailbox`]: the delivery of messages through the slots of a machine's VPs.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, clippy::as_conversions))]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod bus;
pub mod core;
pub mod device;
pub mod inspect;
pub mod mailbox;
pub mod synic;
pub mod trace;
pub mod worker;

pub use bus::VmBus;
pub use core::{ChannelKey, ConnectRequest, Offer, OfferError, saved};
pub use device::{Channel, ChannelHandle, ConnectHandler, Device, OpenError};
pub use inspect::{BusReport, OpenReport};
pub use saved::{RestoreError, SaveError, SavedBus};
pub use synic::{QueuedMessage, Signal, Synic};
pub use trace::{BusTrace, ChannelTrace, TracedPacket};
pub use vmbus_gpadl::{ReadOnly, ReadWrite};
pub use vmbus_protocol::offer::HvStatus;
pub use worker::{WorkerCounters, WorkerStats};
