//! Packets that were delivered to a driver.

use alloc::vec::Vec;

use crate::handles::ChannelId;

/// A packet from the host.
#[derive(Debug)]
#[non_exhaustive]
pub struct Received {
    /// The payload: a multiple of 8 bytes, up to 7 of them padding. Without its pipe header on a
    /// pipe channel, and then exact.
    pub payload: Vec<u8>,
    /// Transfer pages: the set's id, and (byte count, byte offset) pairs in it. Flag
    /// `EXTERNAL_DATA` of the Windows callback.
    pub transfer_pages: Option<(u16, Vec<(u32, u32)>)>,
    /// To be completed.
    pub completion: Completion,
}

/// The duty to complete one received packet. It counts against the channel's quota until then;
/// dropping it instead is a bug of the driver, which a pause or a disable will report.
#[derive(Debug)]
#[must_use = "every received packet must be completed"]
pub struct Completion {
    pub(crate) channel: ChannelId,
    pub(crate) epoch: u32,
    pub(crate) transaction_id: u64,
    pub(crate) requested: bool,
}

impl Completion {
    /// Returns true if the sender asked for a completion packet.
    #[must_use]
    pub fn requested(&self) -> bool {
        self.requested
    }

    /// The sender's id of the exchange.
    #[must_use]
    pub fn transaction_id(&self) -> u64 {
        self.transaction_id
    }
}
