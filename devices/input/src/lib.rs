//! Hyper-V's synthetic keyboard and mouse on the VMBus.
//!
//! | module | knowledge |
//! |---|---|
//! | [`protocol`] | messages of both devices: bytes in, decisions out. No I/O, no threads |
//! | [`keys`] | text and names of keys as key events of a US keyboard |
//! | `input` | the sink to which display servers send input |
//! | `queue` | bounded queues from the sink to the devices |
//! | `device` | both devices: offer, opening of channels, save and restore |
//! | `handler` | a device's part of an open channel |
//! | `saved` | the format of saved states |
//!
//! [`Input`] is the sink; [`Keyboard`] and [`Mouse`] are the devices (docs/display.md).
#![forbid(unsafe_code)]

mod device;
mod handler;
mod input;
pub mod keys;
mod port;
pub mod protocol;
mod queue;

pub use device::{KEYBOARD, KEYBOARD_INSTANCE, Keyboard, MOUSE, MOUSE_INSTANCE, Mouse};
pub use input::Input;
pub use keys::{KeyEvent, UnknownKey};
pub use port::{InputCounters, InputError};
pub use queue::MAX_KEYS;
