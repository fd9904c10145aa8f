//! The offloads that a backend can do.

use crate::{Segmentation, VnetHeader};

bitflags::bitflags! {
    /// Work on frames that a backend takes over from the guest.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Offloads: u8 {
        /// Fills in TCP and UDP checksums of frames that are sent.
        const TRANSMIT_CHECKSUM = 1 << 0;
        /// Splits TCP frames over IPv4 that are sent.
        const TSO4 = 1 << 1;
        /// Splits TCP frames over IPv6 that are sent.
        const TSO6 = 1 << 2;
        /// Splits UDP frames that are sent.
        const USO = 1 << 3;
        /// Received frames may have a checksum that is known to be good, or one that is not filled
        /// in.
        const RECEIVE_CHECKSUM = 1 << 4;
        /// Received TCP frames may be longer than the MTU, up to 64 KiB. Needs `RECEIVE_CHECKSUM`.
        const COALESCED_RECEIVE = 1 << 5;
    }
}

impl Offloads {
    /// All that concern frames that are sent.
    pub const TRANSMIT: Self = Self::TRANSMIT_CHECKSUM.union(Self::SEGMENTATION);
    /// All that split frames that are sent.
    pub const SEGMENTATION: Self = Self::TSO4.union(Self::TSO6).union(Self::USO);
    /// All that concern frames that are received.
    pub const RECEIVE: Self = Self::RECEIVE_CHECKSUM.union(Self::COALESCED_RECEIVE);

    /// Returns the transmit offloads that a frame with this header needs. `None`: its segmentation
    /// is of an unknown kind.
    pub fn needed(header: &VnetHeader) -> Option<Self> {
        let checksum =
            if header.needs_checksum() { Self::TRANSMIT_CHECKSUM } else { Self::empty() };
        Some(match header.segmentation().ok()? {
            None => checksum,
            Some(Segmentation::Tcp4) => checksum | Self::TSO4,
            Some(Segmentation::Tcp6) => checksum | Self::TSO6,
            Some(Segmentation::Udp) => checksum | Self::USO,
        })
    }
}
