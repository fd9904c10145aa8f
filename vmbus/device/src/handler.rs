//! The interface of a device to the runtime, for each of its channels.

use std::error::Error;
use std::os::fd::RawFd;

use vmbus_host::Channel;
use vmbus_ring::Packet;

use crate::outbox::{Outbox, Payload};

/// The device's part of one open channel. A worker calls it from one thread.
///
/// No call may block: long work goes to a thread or to the kernel, and one of
/// [`ChannelHandler::events`] signals its end. If a call panics, only its channel is lost.
pub trait ChannelHandler: Send + 'static {
    /// The bytes of a packet to the guest.
    type Payload: Payload;

    /// The reason why a packet breaks the channel. [`std::convert::Infallible`] if none does.
    type Error: Error;

    /// The handler's part of a saved channel; `()` if it has no state.
    type State: Clone + Default + Send + 'static;

    /// Handles one packet. A reply goes to `outbox`, now or later.
    ///
    /// The packet is in guest memory, which the guest may change at any time: the handler must
    /// copy, validate the copy, and use only the copy.
    ///
    /// # Errors
    /// The guest broke the channel. The worker stops serving it, and the guest may open it again.
    fn packet(
        &mut self,
        packet: &Packet<'_>,
        outbox: &mut Outbox<Self::Payload>,
    ) -> Result<(), Self::Error>;

    /// Begins a round: applies changes of the state that the device's channels share. Called often.
    #[inline]
    fn begin_round(&mut self, outbox: &mut Outbox<Self::Payload>) {
        let _ = outbox;
    }

    /// Returns true if another packet may be taken. Otherwise packets stay in the ring, which is
    /// the backpressure to the guest.
    #[inline]
    fn may_take(&self) -> bool {
        true
    }

    /// Returns true if the batch must end before its usual number of packets, as it moves many
    /// bytes.
    #[inline]
    fn is_batch_full(&self) -> bool {
        false
    }

    /// Ends a batch: submits the work of all its packets.
    #[inline]
    fn end_batch(&mut self) {}

    /// Puts the replies of finished work into `outbox`.
    #[inline]
    fn complete(&mut self, outbox: &mut Outbox<Self::Payload>) -> Completed {
        let _ = outbox;
        Completed::Nothing
    }

    /// Called after the replies of a round were written to the ring. For requests to the bus that
    /// must follow the reply that announces them, such as [`Channel::offer_subchannels`].
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

    /// Returns the number of requests that the guest sent without waiting for the replies of this
    /// round. If it is never more than zero, the interrupts for replies are not delayed, as each
    /// delay would hold up the guest. Default: the requests in flight.
    #[inline]
    fn backlog(&self) -> usize {
        self.in_flight()
    }

    /// Adds those of [`ChannelHandler::events`] that end a delay of the interrupt for replies: work
    /// for which the guest should not wait that long.
    #[inline]
    fn urgent_events(&self, events: &mut Vec<RawFd>) {
        let _ = events;
    }

    /// Returns the handler's part of a saved channel. `None` while work in flight may touch guest
    /// memory, as the channel cannot be quiesced then.
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
    /// Finished work was taken, and new work was begun that may have finished already: the worker
    /// calls again before it sleeps.
    CallAgain,
}
