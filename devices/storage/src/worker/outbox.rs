//! Packets to the guest that wait for room in the ring.

use std::collections::VecDeque;

use vmbus_host::Channel;
use vmbus_ring::{OutPacket, SpaceWait, WriteError};

use crate::saved::SavedPacket;
use crate::storvsp::Reply;

/// Packets that may wait before the ring is left unread: with the requests in flight this bounds all that a guest can pile up.
const MAX_WAITING: usize = 1024;

/// How often to look for room when the guest is too old to tell, in milliseconds (vmbus-core section 7.3).
const POLL_INTERVAL: u16 = 1;

/// Packets to the guest, oldest first.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    packets: VecDeque<OutMessage>,
    poll: bool,
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

    /// Writes what there is room for, with one decision whether to signal; arranges to be told of room for the rest.
    ///
    /// # Errors
    /// The ring is broken.
    pub(super) fn deliver(&mut self, channel: &mut Channel) -> Result<(), WriteError> {
        self.poll = false;
        while !self.packets.is_empty() {
            let mut batch = channel.outgoing.batch()?;
            let mut full = None;
            while let Some(message) = self.packets.front() {
                let payload = [message.reply.bytes()];
                let packet = match message.answers {
                    Some(transaction_id) => OutPacket::completion(transaction_id, &payload),
                    None => OutPacket::in_band(0, &payload),
                };
                match batch.write(&packet) {
                    Ok(()) => {}
                    Err(WriteError::Full { needed }) => {
                        full = Some(needed);
                        break;
                    }
                    Err(error) => return Err(error),
                }
                self.packets.pop_front();
            }
            let signal = batch.commit();
            channel.signal_if(signal);
            let Some(needed) = full else { break };
            match channel.outgoing.wait_for_space(needed)? {
                SpaceWait::Ready => {}
                SpaceWait::Signalled => return Ok(()),
                SpaceWait::Poll => {
                    self.poll = true;
                    return Ok(());
                }
            }
        }
        if channel.outgoing.is_waiting() {
            channel.outgoing.space_came();
        }
        Ok(())
    }
}
