//! RNDIS: frames in both directions, and control messages (netvsc sections 4 to 6 and 9).
//!
//! * [`TransmitCursor`]: the frames in a message of the guest, each with its offload request.
//! * [`ReceiveHeader`]: the header in front of a frame to the guest.

mod offload;
mod packet_info;
mod receive;
#[cfg(test)]
mod tests;
mod transmit;
mod vlan;

pub use offload::{ChecksumRequest, IpVersion, Offload, Segmentation, Transport};
pub use receive::{Fragment, ReceiveChecksum, ReceiveHeader, ReceivedFrame, Verdict};
pub use transmit::{TransmitCursor, TransmitError, TransmitFrame};
pub use vlan::Vlan;

/// Numbers of RNDIS messages (netvsc section 6).
mod kind {
    pub(super) const PACKET: u32 = 1;
}
