//! The storage protocol inside an opened channel, without I/O: packet in, action out.
//!
//! * [`Session`]: one channel's protocol state; [`Session::handle`] turns a packet into an
//!   [`Action`].
//! * [`Negotiation`]: the state that all channels of a controller share: stage of initialisation
//!   and agreed version.
//! * [`Srb`]: a validated EXECUTE_SRB. [`Completion`]: its outcome, in SCSI and port driver
//!   statuses.
//!
//! Source: spec storvsc sections 2 to 5 and 12.

mod completion;
mod limits;
mod negotiation;
mod reply;
mod session;
mod srb;
mod status;
#[cfg(test)]
mod tests;

pub use completion::Completion;
pub use limits::{MAX_LUNS, MAX_TRANSFER};
pub use negotiation::{Negotiation, Stage};
pub use reply::Reply;
pub use session::{Action, Malformed, Session};
pub use srb::{Address, Completer, Routing, Srb};
pub use status::NtStatus;
pub use synthvm_storvsc::{MAX_PACKET, Version};
