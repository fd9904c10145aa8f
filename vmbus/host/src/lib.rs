//! The VMBus host: a sans-IO state machine and the thin shell that gives it doorbells and interrupts.

pub mod device;
pub mod synic;

pub use device::{Channel, Device, Offer, OpenError};
pub use synic::{Signal, Synic};
