//! NVSP: the messages on the ring of a network card's channels (netvsc sections 2 and 3).
//!
//! * [`GuestMessage`]: a parsed message of the guest.
//! * [`Session`]: the state of one card's connection; [`Session::handle`] judges a message.
//! * [`HostMessage`]: a message or a completion to the guest.

mod error;
mod guest_message;
mod host_message;
mod negotiated;
mod send_buffer;
mod session;
mod subchannel;
#[cfg(test)]
mod tests;
mod version;

pub use error::ProtocolError;
pub use guest_message::{ChannelType, GuestMessage, RndisPacket, Section, TooShort};
pub use host_message::{HostMessage, NvspStatus, SendTableMessage};
pub use negotiated::{Capabilities, NdisVersion, max_frame};
pub use send_buffer::SendBuffer;
pub use session::{
    BufferRequest, Completion, DataPath, Effect, Gpadl, InvalidSession, Outcome, SavedBuffer,
    SavedSession, Session,
};
pub use subchannel::handle_subchannel;
pub use version::NvspVersion;
