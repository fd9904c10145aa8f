//! Versions of NVSP (netvsc section 2).

use vmbus_protocol::wire_enum;

wire_enum! {
    /// A version of NVSP, oldest first.
    #[derive(PartialOrd, Ord)]
    pub enum NvspVersion: u32 {
        /// 1, Windows Server 2008.
        V1 = 2,
        /// 2, Windows Server 2008 R2: NDIS_CONFIG.
        V2 = 0x3_0002,
        /// 4, Windows Server 2012: virtual functions.
        V4 = 0x4_0000,
        /// 5, Windows Server 2012 R2: subchannels.
        V5 = 0x5_0000,
        /// 6.0, Windows Server 2016: PacketDirect.
        V6 = 0x6_0000,
        /// 6.1, Windows Server 2019: receive coalescing, longer messages.
        V61 = 0x6_0001,
    }
}

impl NvspVersion {
    /// Returns the size of a full message, in bytes. Shorter completions hang Linux guests.
    pub const fn message_size(self) -> usize {
        if self.number() >= Self::V61.number() { 40 } else { 28 }
    }

    /// Returns true if the guest must send NDIS_CONFIG before it shares a receive buffer.
    pub fn has_ndis_config(self) -> bool {
        self >= Self::V2
    }

    /// Returns true if SWITCH_DATA_PATH and VF_ASSOCIATION exist.
    pub fn has_data_paths(self) -> bool {
        self >= Self::V4
    }

    /// Returns true if SUBCHANNEL, the send indirection table and OID_QUERY_EX exist.
    pub fn has_subchannels(self) -> bool {
        self >= Self::V5
    }

    /// Returns true if PD_API exists.
    pub fn has_packet_direct(self) -> bool {
        self >= Self::V6
    }

    /// Returns true if the guest may accept coalesced TCP segments.
    pub fn has_receive_coalescing(self) -> bool {
        self >= Self::V61
    }
}
