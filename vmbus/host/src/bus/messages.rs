//! Messages: from the guest to the core, and from the core to the guest.

use std::sync::atomic::Ordering;

use tracing::warn;
use vmbus_protocol::MessageBuffer;
use vmbus_protocol::limits::{MAX_INBOX_MESSAGES, MAX_MESSAGE_SIZE};
use vmbus_protocol::message::Direction;
use vmbus_protocol::offer::HvStatus;

use super::pump::VCPU_WORK;
use super::state::{Event, GuestBytes, Inner, State};
use crate::synic::QueuedMessage;

impl Inner {
    pub(super) fn post(&self, connection_id: u32, payload: &[u8]) -> HvStatus {
        // The usual case: no other thread works on the bus, so the message is not copied or queued.
        if let Some(mut state) = self.pump.enter(self, VCPU_WORK) {
            self.handle_message(&mut state, connection_id, payload);
            return HvStatus::Success;
        }
        let status = self.queue_message(connection_id, payload);
        // Also if the queue is full: the thread that filled it may have found the state locked by
        // this one.
        self.pump.settle(self, VCPU_WORK);
        status
    }

    fn queue_message(&self, connection_id: u32, payload: &[u8]) -> HvStatus {
        let mut queue = self.pump.queue();
        if self.queued_messages.load(Ordering::Relaxed) >= MAX_INBOX_MESSAGES {
            return HvStatus::InsufficientBuffers;
        }
        let mut message = GuestBytes { bytes: [0; MAX_MESSAGE_SIZE], len: payload.len() };
        if let Some(to) = message.bytes.get_mut(..payload.len()) {
            to.copy_from_slice(payload);
        }
        self.queued_messages.fetch_add(1, Ordering::Relaxed);
        queue.events.push_back(Event::Message { connection_id, message });
        HvStatus::Success
    }

    /// Drops the queued messages of the last guest, as the machine restarts.
    pub(super) fn drop_queued_messages(&self) {
        let mut queue = self.pump.queue();
        queue.events.retain(|event| !matches!(event, Event::Message { .. }));
        self.queued_messages.store(0, Ordering::Relaxed);
    }

    pub(super) fn handle_message(&self, state: &mut State, connection_id: u32, payload: &[u8]) {
        if let Some(trace) = self.trace.get() {
            trace.message(Direction::ToHost, payload);
        }
        if let Err(why) = state.core.message(connection_id, payload) {
            self.ignored
                .log(|suppressed| warn!(?why, suppressed, "a message from the guest was ignored"));
        }
        self.act(state);
    }

    pub(super) fn deliver(&self, state: &mut State, vp: u32, sint: u8, message: &MessageBuffer) {
        if let Some(trace) = self.trace.get() {
            trace.message(Direction::ToGuest, message.as_bytes());
        }
        match &mut state.held {
            Some(held) => {
                held.push_back(QueuedMessage { vp, sint, message: message.as_bytes().to_vec() });
            }
            None => self.synic.post_message(vp, sint, message.as_bytes()),
        }
    }
}
