//! Packets to the guest that wait for room in the ring.

use std::collections::VecDeque;

use vmbus_host::Channel;
use vmbus_ring::{OutPacket, SpaceWait, WriteError};

use super::limits::MAX_HELD;
use crate::protocol::Reply;
use crate::saved::SavedPacket;

/// Packets that may wait before the ring is left unread: with the requests in flight this bounds all that a guest can pile up.
const MAX_WAITING: usize = 1024;

/// How often to look for room when the guest is too old to tell, in milliseconds (vmbus-core section 7.3).
const POLL_INTERVAL: u16 = 1;

/// Packets to the guest, oldest first.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    packets: VecDeque<OutMessage>,
    poll: bool,
    /// Packets in the ring that the guest has to be told of, and has not been.
    untold: usize,
}

#[derive(Clone, Copy, Debug)]
struct OutMessage {
    /// `None`: news that nobody asked for.
    answers: Option<u64>,
    reply: Reply,
}

impl Outbox {
    /// Queues the answer to request `transaction_id`.
    pub(super) fn complete(&mut self, transaction_id: u64, reply: Reply) {
        self.packets.push_back(OutMessage { answers: Some(transaction_id), reply });
    }

    /// Queues news: id 0, no completion wanted.
    pub(super) fn notify(&mut self, reply: Reply) {
        self.packets.push_back(OutMessage { answers: None, reply });
    }

    /// What waits, to be written down.
    pub(super) fn saved(&self) -> Vec<SavedPacket> {
        let saved =
            |one: &OutMessage| SavedPacket { answers: one.answers, bytes: one.reply.bytes().to_vec() };
        self.packets.iter().map(saved).collect()
    }

    /// What waited when it was written down.
    pub(super) fn restore(&mut self, saved: &[SavedPacket]) {
        let packets = saved
            .iter()
            .filter_map(|one| Some(OutMessage { answers: one.answers, reply: Reply::restored(&one.bytes)? }));
        self.packets.extend(packets);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Requests may be taken whose answers would wait here.
    pub(super) fn has_room(&self) -> bool {
        self.packets.len() < MAX_WAITING
    }

    /// How long to sleep at most, in milliseconds.
    pub(super) fn timeout(&self) -> Option<u16> {
        self.poll.then_some(POLL_INTERVAL)
    }

    /// Packets that the guest has yet to be [told](Outbox::tell) of.
    pub(super) fn untold(&self) -> usize {
        self.untold
    }

    /// Tells the guest of what [`Outbox::deliver`] wrote, unless it has been told or has read all of it by itself.
    pub(super) fn tell(&mut self, channel: &mut Channel) {
        if std::mem::take(&mut self.untold) != 0 {
            let ring = channel.outgoing.indices();
            channel.signal_if(ring.read_index != ring.write_index);
        }
    }

    /// Writes what there is room for, with one decision whether to signal; arranges to be told of room for the rest. With `hold` the guest is
    /// told only when the ring is full; else [`Outbox::tell`] has to follow. Returns how many packets were written.
    ///
    /// # Errors
    /// The ring is broken.
    pub(super) fn deliver(&mut self, channel: &mut Channel, hold: bool) -> Result<usize, WriteError> {
        let mut written = 0;
        self.poll = false;
        while !self.packets.is_empty() {
            let mut batch = channel.outgoing.batch()?;
            let mut full = None;
            let before = written;
            while let Some(message) = self.packets.front() {
                let payload = [message.reply.bytes()];
                let packet = match message.answers {
                    Some(transaction_id) => OutPacket::completion(transaction_id, &payload),
                    None => OutPacket::in_band(0, &payload),
                };
                match batch.write(&packet) {
                    Ok(()) => written += 1,
                    Err(WriteError::Full { needed }) => {
                        full = Some(needed);
                        break;
                    }
                    Err(error) => return Err(error),
                }
                self.packets.pop_front();
            }
            if batch.commit() || self.untold != 0 {
                self.untold += written - before;
            }
            if !hold || full.is_some() || self.untold >= MAX_HELD {
                self.tell(channel);
            }
            let Some(needed) = full else { break };
            match channel.outgoing.wait_for_space(needed)? {
                SpaceWait::Ready => {}
                SpaceWait::Signalled => return Ok(written),
                SpaceWait::Poll => {
                    self.poll = true;
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
