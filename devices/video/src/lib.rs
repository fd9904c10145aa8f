//! synthvid: Hyper-V's synthetic video device on the VMBus.
//!
//! | module | knowledge |
//! |---|---|
//! | [`protocol`] | messages, session, modes, regions: bytes in, decisions out. No I/O |
//! | `screen` | the picture, as display servers read it |
//! | `memory` | the interface to video memory, which the machine provides |
//! | `device` | the device: offer, opening of channels, save and restore |
//! | `handler` | the device's part of an open channel |
//! | `counters` | what any thread may read of the device |
//! | `saved` | the format of saved states |
//!
//! [`VideoDevice`] is the device, [`Screen`] its picture (docs/display.md).
#![forbid(unsafe_code)]

mod counters;
mod device;
mod handler;
mod memory;
pub mod protocol;
mod saved;
mod screen;

pub use counters::VideoCounters;
pub use device::{VIDEO, VIDEO_INSTANCE, VideoDevice, VideoOptions};
pub use memory::{PlaceError, PrivateMemory, VideoMemory};
pub use screen::{Changes, Frame, Pointer, Screen, ScreenWatch};
