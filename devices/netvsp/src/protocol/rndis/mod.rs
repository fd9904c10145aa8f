//! RNDIS: frames in both directions, and control messages (netvsc sections 4 to 6 and 9).
//!
//! * [`TransmitCursor`]: the frames in a message of the guest, each with its offload request.
//! * [`ReceiveHeader`]: the header in front of a frame to the guest.
//! * [`Control`]: the state that control messages set up; [`Control::handle`] judges one.
//! * [`ControlMessage`]: an answer or an indication to the guest.
//! * [`LinkEvents`]: spaces the indications of the link.

mod control;
mod control_message;
mod control_request;
mod error;
mod link_events;
mod offload;
mod packet_info;
mod receive;
mod status;
#[cfg(test)]
mod tests;
mod transmit;
mod vlan;

pub use control::{Control, ControlEffect, ControlOutcome, InvalidControl, SavedControl, Stage};
pub use control_message::ControlMessage;
pub use control_request::{ControlRequest, MalformedControl};
pub use error::TransmitError;
pub use link_events::{LinkDecision, LinkEvents, LinkIndication};
pub use offload::{ChecksumRequest, IpVersion, Offload, Segmentation, Transport};
pub use receive::{Fragment, ReceiveChecksum, ReceiveHeader, ReceivedFrame, Verdict};
pub use status::RndisStatus;
pub use transmit::{TransmitCursor, TransmitFrame};
pub use vlan::Vlan;

/// Offsets in RNDIS messages count from byte 8, the end of type and length.
const OFFSET_BASE: u32 = 8;

/// Numbers of RNDIS messages (netvsc section 6).
mod kind {
    pub(super) const PACKET: u32 = 1;
    pub(super) const INITIALIZE: u32 = 2;
    pub(super) const HALT: u32 = 3;
    pub(super) const QUERY: u32 = 4;
    pub(super) const SET: u32 = 5;
    pub(super) const RESET: u32 = 6;
    pub(super) const INDICATE_STATUS: u32 = 7;
    pub(super) const KEEPALIVE: u32 = 8;
    /// Marks the answer to a message.
    pub(super) const COMPLETE: u32 = 0x8000_0000;
}
