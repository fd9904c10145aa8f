//! The callbacks of a driver: for state changes and for packets.

use alloc::vec::Vec;

use crate::channel::{Channel, ChannelId};
use crate::platform::Platform;
use crate::status::NtStatus;

/// The callbacks of a client driver (kmcl.md 3.1). Each has an empty default.
///
/// A callback gets its channel and may make all calls that are legal at that point; pausing,
/// starting, enabling and disabling are not. While a callback waits (for a GPADL, for an answer),
/// the rest of the client keeps working: other channels' callbacks may run inside the wait. This
/// channel's callbacks do not run; its packets wait.
pub trait Driver<P: Platform>: Send {
    /// The channel is open; packets are not flowing yet. Create long-lived GPADLs here.
    ///
    /// # Errors
    /// Any failure status closes the channel and disables it.
    fn opened(&mut self, channel: &mut Channel<'_, P>) -> Result<(), NtStatus> {
        let _ = channel;
        Ok(())
    }

    /// Packets may be sent. None is received yet, so the callback must not wait for one.
    fn started(&mut self, channel: &mut Channel<'_, P>) {
        let _ = channel;
    }

    /// Packets flow both ways: the place for a synchronous negotiation.
    fn post_started(&mut self, channel: &mut Channel<'_, P>) {
        let _ = channel;
    }

    /// No packet is delivered until the next start. Every delivered packet must be completed by the
    /// end of this callback.
    fn suspend(&mut self, channel: &mut Channel<'_, P>) {
        let _ = channel;
    }

    /// The channel closes: delete all GPADLs here.
    fn closed(&mut self, channel: &mut Channel<'_, P>) {
        let _ = channel;
    }

    /// A packet was delivered. It must be completed by exactly one [`Channel::packet_complete`],
    /// now or later.
    fn process_packet(&mut self, channel: &mut Channel<'_, P>, packet: Received);

    /// A batch has ended: `packets` were delivered, and the ring is empty or the queue is blocked.
    fn processing_complete(&mut self, channel: &mut Channel<'_, P>, packets: u32) {
        let _ = (channel, packets);
    }

    /// The device was found but the channel could not be opened; it is disabled again.
    fn pnp_failure(&mut self, status: NtStatus) {
        let _ = status;
    }
}

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
