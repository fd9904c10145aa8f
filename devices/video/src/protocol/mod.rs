//! synthvid inside an opened channel, without I/O, threads or a clock: packet in, decision out.
//!
//! * [`GuestMessage`]: a validated message of the guest.
//! * [`Session`]: one channel's protocol state; [`Session::handle`] turns a packet into an
//!   [`Outcome`].
//! * [`Mode`], [`Resolution`]: the layout of the frame buffer, and the sizes that it can have.
//! * [`Region`]: the changed part of a screen, in bounded memory.
//!
//! Source: docs/spec/hid-video.md sections 4 and 8.

mod bytes;
mod limits;
mod message;
mod mode;
mod pointer;
mod region;
mod reply;
mod session;
#[cfg(test)]
mod tests;
mod version;

pub use limits::{MAX_PACKET, MAX_POINTER, MAX_RESOLUTIONS, PAGE};
pub use message::{GuestMessage, Malformed, Situation};
pub use mode::{Mode, ModeError, RESOLUTIONS, Resolution, ResolutionError, resolutions};
pub use pointer::{PointerPart, PointerShape};
pub use region::{Rectangle, Region};
pub use session::{Effect, Outcome, Rejected, SavedSession, Session};
pub use version::Version;
