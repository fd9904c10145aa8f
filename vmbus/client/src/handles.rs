//! The names of channels and GPADLs in a client.

use bitflags::bitflags;
use vmbus_protocol::limits::MAX_GPADL_PAGES;

/// Maximum number of words (one for each range, one for each page) of one GPADL: `range_buflen` is
/// 16 bits, so 65,528 bytes.
pub const MAX_WORDS: usize = MAX_GPADL_PAGES + 1;

/// The id of a channel object of one client; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub(crate) u32);

bitflags! {
    /// Flags of a GPADL (`VMBUS_CHANNEL_GPADL_FLAG_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct GpadlFlags: u32 {
        /// The server should treat the GPADL as read-only. The wire carries no flags, so the
        /// driver must pass this to the server together with the number.
        /// [`Platform::gpadl_created`](crate::Platform::gpadl_created) gets the flag, for
        /// platforms that share more than the wire with their host.
        const READ_ONLY = 0x1;
    }
}

/// The number of a confirmed GPADL. The driver passes it to its peer in its own protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GpadlHandle(pub(crate) u32);

impl GpadlHandle {
    /// Returns the number on the wire.
    #[must_use]
    pub const fn id(self) -> u32 {
        self.0
    }
}
