//! Status of control messages (netvsc section 6).

use vmbus_protocol::wire_enum;

wire_enum! {
    /// Status of a control message: an NDIS status.
    pub enum RndisStatus: u32 {
        /// Done.
        Success = 0,
        /// The host has no resources for the request.
        Resources = 0xC000_009A,
        /// Refused.
        Failure = 0xC000_0001,
        /// The OID or the feature is not supported.
        NotSupported = 0xC000_00BB,
        /// The version is not supported.
        BadVersion = 0xC001_0004,
        /// The length of the information is wrong.
        InvalidLength = 0xC001_0014,
        /// The information is malformed.
        InvalidData = 0xC001_0015,
    }
}
