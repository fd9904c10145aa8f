//! What a device implements for each of its channels.

use std::error::Error;
use std::os::fd::RawFd;

use vmbus_host::Channel;
use vmbus_ring::Packet;

use crate::outbox::{Outbox, Payload};

/// The device's part of one open channel. A worker calls it from one thread.
///
/// No call may wait: work that takes long goes to a thread or to the kernel, and one of
/// [`ChannelHandler::events`] tells when it is done. A call that panics loses the channel, and
/// nothing else.
pub trait ChannelHandler: Send + 'static {
    /// The bytes of a packet to the guest.
    type Payload: Payload;

    /// The reason why a packet makes the channel unusable. [`std::convert::Infallible`] if none
    /// does.
    type Error: Error;

    /// The handler's part of a saved channel; `()` if there is nothing to save.
    type State: Clone + Default + Send + 'static;

    /// Takes one packet. A reply goes to `outbox`, now or later.
    ///
    /// The packet lies in guest memory, which the guest may change at any moment: copy, check the
    /// copy, use the copy.
    ///
    /// # Errors
    /// The guest broke the channel. It is given up, and the guest may open it again.
    fn packet(
        &mut self,
        packet: &Packet<'_>,
        outbox: &mut Outbox<Self::Payload>,
    ) -> Result<(), Self::Error>;

    /// A round begins: takes over changes of what the device's channels share. Called often.
    #[inline]
    fn begin_round(&mut self, outbox: &mut Outbox<Self::Payload>) {
        let _ = outbox;
    }

    /// Whether another packet may be taken. While it may not, packets stay in the ring: that is all
    /// the backpressure that a guest needs.
    #[inline]
    fn may_take(&self) -> bool {
        true
    }

    /// Whether the batch is to end before its usual number of packets, as it moves many bytes.
    #[inline]
    fn is_batch_full(&self) -> bool {
        false
    }

    /// All packets of a batch were taken: submits the work that was begun.
    #[inline]
    fn end_batch(&mut self) {}

    /// Puts the replies of finished work into `outbox`.
    #[inline]
    fn complete(&mut self, outbox: &mut Outbox<Self::Payload>) -> Completed {
        let _ = outbox;
        Completed::Nothing
    }

    /// The replies of a round were written to the ring. For requests to the bus that must come
    /// after the reply which announced them, such as [`Channel::offer_subchannels`].
    #[inline]
    fn delivered(&mut self, channel: &Channel) {
        let _ = channel;
    }

    /// Adds the descriptors that are readable when [`ChannelHandler::complete`] has work. That call
    /// must clear them.
    #[inline]
    fn events(&self, events: &mut Vec<RawFd>) {
        let _ = events;
    }

    /// Returns the number of requests in flight. While there are any, a closing channel waits for
    /// them (two seconds at most), and a pause for its timeout.
    #[inline]
    fn in_flight(&self) -> usize {
        0
    }

    /// Returns the handler's part of a saved channel. `None`: work is in flight that may touch
    /// guest memory, so the channel cannot be quiesced now.
    fn quiesce(&self) -> Option<Self::State> {
        (self.in_flight() == 0).then(Self::State::default)
    }
}

/// The result of [`ChannelHandler::complete`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Completed {
    /// No work had finished.
    Nothing,
    /// Finished work was taken.
    Some,
    /// The same, and more was begun that may be finished by now: call again before sleeping.
    CallAgain,
}
