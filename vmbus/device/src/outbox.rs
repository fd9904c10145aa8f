//! Packets to the guest that wait for space in the ring.

use std::time::Duration;

#[cfg(feature = "serde")]
use serde::{Deserialize, Serialize};
use vmbus_host::{Channel, ChannelTrace};
use vmbus_ring::{OutPacket, PacketKind, SpaceWait, WriteError};

use crate::limits::{MAX_PENDING, MAX_WAITING, MAX_WAITING_BYTES};

/// Interval of checks for space if the guest is too old to signal it (vmbus-core section 7.3).
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// The bytes of a packet to the guest.
pub trait Payload: AsRef<[u8]> + Send + 'static {
    /// Returns the payload with these saved bytes, or `None` if no payload of the device has them.
    fn from_saved(bytes: &[u8]) -> Option<Self>
    where
        Self: Sized;

    /// Returns the header of a transfer-pages packet, which names parts of a buffer that the guest
    /// has shared ([`vmbus_ring::transfer_pages_header`]). Empty: the packet has no external data.
    #[inline]
    fn transfer_pages(&self) -> &[u8] {
        &[]
    }

    /// Returns the payload with these bytes and this header, which were saved. A device whose
    /// packets have a header implements it.
    fn from_saved_transfer(bytes: &[u8], header: &[u8]) -> Option<Self>
    where
        Self: Sized,
    {
        if header.is_empty() { Self::from_saved(bytes) } else { None }
    }
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
    /// The transaction id with which the guest must complete the packet. `None` for a packet that
    /// requests no completion.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub requests: Option<u64>,
    /// The packet's payload.
    pub bytes: Vec<u8>,
    /// [`Payload::transfer_pages`].
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Vec::is_empty"))]
    pub transfer_pages: Vec<u8>,
}

/// Packets to the guest with payloads of type `P`, oldest first.
#[derive(Debug)]
pub struct Outbox<P = Vec<u8>> {
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

/// The packets that [`Outbox::deliver`] wrote to the ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Delivered {
    /// All packets.
    pub(crate) packets: usize,
    /// The packets that complete a request of the guest.
    pub(crate) replies: usize,
}

#[derive(Clone, Copy, Debug)]
struct Message<P> {
    transaction: Transaction,
    payload: P,
}

/// The transaction of a packet, by its id.
#[derive(Clone, Copy, Debug)]
enum Transaction {
    /// A request of the guest, which the packet completes.
    Completes(u64),
    /// A request to the guest, which it must complete.
    Requests(u64),
    None,
}

impl<P: Payload> Message<P> {
    /// Passes the packet to the channel's trace.
    #[cold]
    fn trace(&self, trace: &ChannelTrace) {
        let (kind, id, requested) = match self.transaction {
            Transaction::Completes(id) => (PacketKind::Completion, id, false),
            Transaction::Requests(id) => (PacketKind::InBand, id, true),
            Transaction::None => (PacketKind::InBand, 0, false),
        };
        let has_pages = !self.payload.transfer_pages().is_empty();
        let kind = if has_pages { PacketKind::TransferPages } else { kind };
        trace.sent(kind, id, requested, self.payload.as_ref());
    }

    /// Bytes that count against [`MAX_WAITING_BYTES`].
    #[inline]
    fn bytes(&self) -> usize {
        self.payload.as_ref().len() + self.payload.transfer_pages().len()
    }
}

impl<P: Payload> Outbox<P> {
    pub(crate) fn new() -> Self {
        Self { packets: Vec::new(), first: 0, bytes: 0, must_poll: false, pending: 0 }
    }

    /// Queues the completion of request `transaction_id`.
    #[inline(always)]
    pub fn complete(&mut self, transaction_id: u64, payload: P) {
        self.push(Message { transaction: Transaction::Completes(transaction_id), payload });
    }

    /// Queues a packet that the guest must complete with `transaction_id`: a transfer-pages packet
    /// if the payload has a header, else an in-band one.
    #[inline]
    pub fn request(&mut self, transaction_id: u64, payload: P) {
        self.push(Message { transaction: Transaction::Requests(transaction_id), payload });
    }

    /// Queues a packet that completes no request: transaction id 0, without a completion from the
    /// guest.
    #[inline]
    pub fn notify(&mut self, payload: P) {
        self.push(Message { transaction: Transaction::None, payload });
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

    #[inline(always)]
    fn push(&mut self, message: Message<P>) {
        self.bytes += message.bytes();
        self.packets.push(message);
    }

    /// Returns the waiting packets in their saved form.
    pub(crate) fn saved(&self) -> Vec<SavedPacket> {
        let saved = |one: &Message<P>| {
            let (answers, requests) = match one.transaction {
                Transaction::Completes(id) => (Some(id), None),
                Transaction::Requests(id) => (None, Some(id)),
                Transaction::None => (None, None),
            };
            SavedPacket {
                answers,
                requests,
                bytes: one.payload.as_ref().to_vec(),
                transfer_pages: one.payload.transfer_pages().to_vec(),
            }
        };
        self.waiting().iter().map(saved).collect()
    }

    /// Queues saved packets.
    pub(crate) fn restore(&mut self, saved: &[SavedPacket]) {
        let message = |one: &SavedPacket| {
            let transaction = match (one.answers, one.requests) {
                (Some(id), _) => Transaction::Completes(id),
                (None, Some(id)) => Transaction::Requests(id),
                (None, None) => Transaction::None,
            };
            let payload = P::from_saved_transfer(&one.bytes, &one.transfer_pages)?;
            Some(Message { transaction, payload })
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
    /// the guest for a signal when there is space for the rest. With `delay` the guest is not
    /// interrupted for replies, unless the ring is full or [`MAX_PENDING`] is reached;
    /// [`Outbox::notify_guest`] must follow. A packet that is no reply is news to the guest: it is
    /// interrupted immediately.
    ///
    /// # Errors
    /// The ring is broken.
    pub(crate) fn deliver(
        &mut self,
        channel: &mut Channel,
        delay: bool,
    ) -> Result<Delivered, WriteError> {
        let mut delivered = Delivered::default();
        self.must_poll = false;
        let trace = channel.trace();
        while !self.is_empty() {
            let mut batch = channel.outgoing.batch()?;
            let mut full = None;
            let before = delivered;
            for message in &self.packets[self.first..] {
                let bytes = message.payload.as_ref();
                let payload = [bytes];
                let is_reply = matches!(message.transaction, Transaction::Completes(_));
                let mut packet = match message.transaction {
                    Transaction::Completes(id) => OutPacket::completion(id, &payload),
                    Transaction::Requests(id) => OutPacket::request(id, &payload),
                    Transaction::None => OutPacket::in_band(0, &payload),
                };
                let header = message.payload.transfer_pages();
                if !header.is_empty() {
                    packet = packet.with_header(PacketKind::TransferPages, header);
                }
                match batch.write(&packet) {
                    Ok(()) => {
                        delivered.packets += 1;
                        delivered.replies += usize::from(is_reply);
                        self.bytes -= bytes.len() + header.len();
                        if let Some(trace) = &trace {
                            message.trace(trace);
                        }
                    }
                    Err(WriteError::Full { needed }) => {
                        full = Some(needed);
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
            let commits = batch.commit();
            let (packets, replies) =
                (delivered.packets - before.packets, delivered.replies - before.replies);
            self.remove(packets);
            if commits || self.pending != 0 {
                self.pending += packets;
            }
            let is_urgent = full.is_some() || packets != replies || self.pending >= MAX_PENDING;
            if !delay || is_urgent {
                self.notify_guest(channel);
            }
            let Some(needed) = full else { break };
            match channel.outgoing.wait_for_space(needed)? {
                SpaceWait::Ready => {}
                SpaceWait::Signalled => return Ok(delivered),
                SpaceWait::Poll => {
                    self.must_poll = true;
                    return Ok(delivered);
                }
            }
        }
        if channel.outgoing.is_waiting() {
            channel.outgoing.space_came();
        }
        Ok(delivered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Transfer(Vec<u8>, Vec<u8>);

    impl AsRef<[u8]> for Transfer {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    impl Payload for Transfer {
        fn from_saved(bytes: &[u8]) -> Option<Self> {
            Some(Self(bytes.to_vec(), Vec::new()))
        }

        fn transfer_pages(&self) -> &[u8] {
            &self.1
        }

        fn from_saved_transfer(bytes: &[u8], header: &[u8]) -> Option<Self> {
            Some(Self(bytes.to_vec(), header.to_vec()))
        }
    }

    fn filled() -> Outbox<Transfer> {
        let mut outbox = Outbox::new();
        outbox.complete(1, Transfer(vec![1], vec![]));
        outbox.request(2, Transfer(vec![2], vec![7; 16]));
        outbox.notify(Transfer(vec![3], vec![]));
        outbox
    }

    #[test]
    fn test_saved_packets_keep_their_transaction_and_header() {
        let saved = filled().saved();
        let fields: Vec<_> = saved.iter().map(|one| (one.answers, one.requests)).collect();
        assert_eq!(fields, [(Some(1), None), (None, Some(2)), (None, None)]);
        assert_eq!(saved[1].transfer_pages, [7; 16]);
        let mut restored = Outbox::<Transfer>::new();
        restored.restore(&saved);
        assert_eq!(restored.saved(), saved);
        assert_eq!(restored.bytes, filled().bytes);
        assert_eq!(restored.bytes, 3 + 16);
    }

    #[test]
    fn test_saved_header_is_not_dropped_by_a_payload_without_one() {
        let mut restored = Outbox::<Vec<u8>>::new();
        restored.restore(&filled().saved());
        // A transfer-pages packet without its ranges would be another packet.
        assert_eq!(restored.saved().len(), 2);
    }
}
