//! Packets to the guest that wait for space in the ring.

use std::time::Duration;

#[cfg(feature = "serde")]
use serde::{Deserialize, Serialize};
use vmbus_host::Channel;
use vmbus_ring::{OutPacket, SpaceWait, WriteError};

use crate::limits::{MAX_PENDING, MAX_WAITING, MAX_WAITING_BYTES};

/// Interval of checks for space if the guest is too old to signal it (vmbus-core section 7.3).
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// The bytes of a packet to the guest.
pub trait Payload: AsRef<[u8]> + Send + 'static {
    /// Returns the payload with these saved bytes, or `None` if no payload of the device has them.
    fn from_saved(bytes: &[u8]) -> Option<Self>
    where
        Self: Sized;
}

impl Payload for Vec<u8> {
    fn from_saved(bytes: &[u8]) -> Option<Self> {
        Some(bytes.to_vec())
    }
}

/// A packet to the guest in a saved state.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(deny_unknown_fields))]
pub struct SavedPacket {
    /// The transaction id of the completed request. `None` for a packet that completes none.
    pub answers: Option<u64>,
    /// The packet's payload.
    pub bytes: Vec<u8>,
}

/// Packets to the guest, oldest first.
#[derive(Debug)]
pub struct Outbox<P> {
    /// Packets before `first` are in the ring already. They are removed together, as each removal
    /// moves the rest.
    packets: Vec<Message<P>>,
    first: usize,
    /// Bytes of the waiting payloads.
    bytes: usize,
    /// The guest does not signal space: check again after [`POLL_INTERVAL`].
    must_poll: bool,
    /// Number of packets in the ring with a pending interrupt.
    pending: usize,
}

#[derive(Clone, Copy, Debug)]
struct Message<P> {
    /// The transaction id of the completed request, if any.
    answers: Option<u64>,
    payload: P,
}

impl<P: Payload> Outbox<P> {
    pub(crate) fn new() -> Self {
        Self { packets: Vec::new(), first: 0, bytes: 0, must_poll: false, pending: 0 }
    }

    /// Queues the completion of request `transaction_id`.
    #[inline(always)]
    pub fn complete(&mut self, transaction_id: u64, payload: P) {
        self.bytes += payload.as_ref().len();
        self.packets.push(Message { answers: Some(transaction_id), payload });
    }

    /// Queues a packet that completes no request: transaction id 0, without a completion from the
    /// guest.
    #[inline]
    pub fn notify(&mut self, payload: P) {
        self.push(Message { answers: None, payload });
    }

    /// Returns the packets that are not in the ring.
    fn waiting(&self) -> &[Message<P>] {
        &self.packets[self.first..]
    }

    /// Removes the first `count` packets, which are in the ring.
    #[inline]
    fn remove(&mut self, count: usize) {
        self.first += count;
        if self.first == self.packets.len() {
            self.packets.clear();
            self.first = 0;
        } else if self.first >= MAX_WAITING {
            self.packets.drain(..self.first);
            self.first = 0;
        }
    }

    #[inline]
    fn push(&mut self, message: Message<P>) {
        self.bytes += message.payload.as_ref().len();
        self.packets.push(message);
    }

    /// Returns the waiting packets in their saved form.
    pub(crate) fn saved(&self) -> Vec<SavedPacket> {
        let saved = |one: &Message<P>| SavedPacket {
            answers: one.answers,
            bytes: one.payload.as_ref().to_vec(),
        };
        self.waiting().iter().map(saved).collect()
    }

    /// Queues saved packets.
    pub(crate) fn restore(&mut self, saved: &[SavedPacket]) {
        let message = |one: &SavedPacket| {
            Some(Message { answers: one.answers, payload: P::from_saved(&one.bytes)? })
        };
        saved.iter().filter_map(message).for_each(|message| self.push(message));
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first == self.packets.len()
    }

    /// Returns true if requests may be taken: their replies may wait here.
    #[inline]
    pub(crate) fn has_space(&self) -> bool {
        self.packets.len() - self.first < MAX_WAITING && self.bytes < MAX_WAITING_BYTES
    }

    /// Returns the maximum time to sleep, if the guest does not signal space.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.must_poll.then_some(POLL_INTERVAL)
    }

    /// Returns the number of packets in the ring with a pending interrupt.
    #[inline]
    pub(crate) fn pending(&self) -> usize {
        self.pending
    }

    /// Interrupts the guest for the packets that [`Outbox::deliver`] wrote, unless there are none
    /// or the guest has read all of them without an interrupt.
    #[inline]
    pub(crate) fn notify_guest(&mut self, channel: &mut Channel) {
        if std::mem::take(&mut self.pending) != 0 {
            let ring = channel.outgoing.indices();
            channel.signal_if(ring.read_index != ring.write_index);
        }
    }

    /// Writes packets while the ring has space, with one decision whether to interrupt, and asks
    /// the guest for a signal when there is space for the rest. With `delay` the guest is
    /// interrupted only if the ring is full or [`MAX_PENDING`] is reached; [`Outbox::notify_guest`]
    /// must follow. Returns the number of packets written.
    ///
    /// # Errors
    /// The ring is broken.
    pub(crate) fn deliver(
        &mut self,
        channel: &mut Channel,
        delay: bool,
    ) -> Result<usize, WriteError> {
        let mut written = 0;
        self.must_poll = false;
        while !self.is_empty() {
            let mut batch = channel.outgoing.batch()?;
            let mut full = None;
            let before = written;
            for message in &self.packets[self.first..] {
                let payload = [message.payload.as_ref()];
                let packet = match message.answers {
                    Some(transaction_id) => OutPacket::completion(transaction_id, &payload),
                    None => OutPacket::in_band(0, &payload),
                };
                match batch.write(&packet) {
                    Ok(()) => {
                        written += 1;
                        self.bytes -= message.payload.as_ref().len();
                    }
                    Err(WriteError::Full { needed }) => {
                        full = Some(needed);
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
            let commits = batch.commit();
            self.remove(written - before);
            if commits || self.pending != 0 {
                self.pending += written - before;
            }
            if !delay || full.is_some() || self.pending >= MAX_PENDING {
                self.notify_guest(channel);
            }
            let Some(needed) = full else { break };
            match channel.outgoing.wait_for_space(needed)? {
                SpaceWait::Ready => {}
                SpaceWait::Signalled => return Ok(written),
                SpaceWait::Poll => {
                    self.must_poll = true;
                    return Ok(written);
                }
            }
        }
        if channel.outgoing.is_waiting() {
            channel.outgoing.space_came();
        }
        Ok(written)
    }
}
