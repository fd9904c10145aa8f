//! Protocol versions (spec storvsc section 2).

use vmbus_protocol::wire_enum;

use crate::{MAX_PACKET, V1_PACKET};

wire_enum! {
    /// A version of the storage protocol, oldest first.
    #[derive(PartialOrd, Ord)]
    pub enum Version: u16 {
        /// 2.0, Windows Server 2008.
        Win6 = 0x0200,
        /// 4.2, Windows 7: adds ENUMERATE_BUS.
        Win7 = 0x0402,
        /// 5.1, Windows 8: adds longer packets and subchannels.
        Win8 = 0x0501,
        /// 6.0, Windows 8.1: guests filter no commands.
        Blue = 0x0600,
        /// 6.2, Windows 10: Linux uses WRITE SAME.
        Win10 = 0x0602,
    }
}

impl Version {
    /// All versions, in the order in which a guest offers them.
    pub const NEWEST_FIRST: [Self; 5] =
        [Self::Win10, Self::Blue, Self::Win8, Self::Win7, Self::Win6];

    /// Returns the size in bytes of unsolicited packets, which follows from the version.
    #[must_use]
    pub const fn packet_size(self) -> usize {
        if self.has_subchannels() { MAX_PACKET } else { V1_PACKET }
    }

    /// Returns true if CREATE_SUB_CHANNELS exists.
    #[must_use]
    pub const fn has_subchannels(self) -> bool {
        self.number() >= Self::Win8.number()
    }

    /// Returns true if ENUMERATE_BUS exists.
    #[must_use]
    pub const fn has_enumerate_bus(self) -> bool {
        self.number() >= Self::Win7.number()
    }
}
