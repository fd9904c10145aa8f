//! Counters of a queue that any thread can read.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Counters, ReceiveError, Received, SendError};

/// The totals of one queue since the card exists. They wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueReport {
    /// The frames and bytes, and the drops by their reasons.
    pub counters: Counters,
    /// Frames from the backend that were dropped while the user had the link down.
    pub receive_link_down: u64,
}

/// The counters behind a [`QueueReport`]. The worker that has the queue is the only writer, so an
/// update is a plain store.
#[derive(Debug, Default)]
pub(super) struct Totals {
    sent_frames: Total,
    sent_bytes: Total,
    received_frames: Total,
    received_bytes: Total,
    full: Total,
    send_link_down: Total,
    send_invalid: Total,
    send_failed: Total,
    receive_too_long: Total,
    receive_overflow: Total,
    receive_invalid: Total,
    pub(super) receive_link_down: Total,
}

impl Totals {
    /// Counts the result of a send of `length` bytes.
    pub(super) fn count_send(&self, length: usize, result: Result<(), SendError>) {
        let total = match result {
            Ok(()) => {
                self.sent_bytes.add(length as u64);
                &self.sent_frames
            }
            Err(SendError::Full) => &self.full,
            Err(SendError::LinkDown) => &self.send_link_down,
            Err(SendError::Length(_) | SendError::Malformed | SendError::Unsupported) => {
                &self.send_invalid
            }
            Err(SendError::Os(_)) => &self.send_failed,
        };
        total.add(1);
    }

    /// Counts the result of a receive.
    pub(super) fn count_receive(&self, result: &Result<Option<Received>, ReceiveError>) {
        match result {
            Ok(Some(received)) => {
                self.received_frames.add(1);
                self.received_bytes.add(received.length as u64);
            }
            Err(ReceiveError::TooLong) => self.receive_too_long.add(1),
            Ok(None) | Err(ReceiveError::LinkDown | ReceiveError::Os(_)) => {}
        }
    }

    /// Adds the drops that only the queue itself sees, from its counters `before` to those `now`.
    pub(super) fn add_unseen(&self, before: &Counters, now: &Counters) {
        self.receive_overflow.add(now.receive_overflow.wrapping_sub(before.receive_overflow));
        self.receive_invalid.add(now.receive_invalid.wrapping_sub(before.receive_invalid));
    }

    pub(super) fn report(&self) -> QueueReport {
        let counters = Counters {
            sent_frames: self.sent_frames.get(),
            sent_bytes: self.sent_bytes.get(),
            received_frames: self.received_frames.get(),
            received_bytes: self.received_bytes.get(),
            full: self.full.get(),
            send_link_down: self.send_link_down.get(),
            send_invalid: self.send_invalid.get(),
            send_failed: self.send_failed.get(),
            receive_too_long: self.receive_too_long.get(),
            receive_overflow: self.receive_overflow.get(),
            receive_invalid: self.receive_invalid.get(),
        };
        QueueReport { counters, receive_link_down: self.receive_link_down.get() }
    }
}

/// A counter with one writer.
#[derive(Debug, Default)]
pub(super) struct Total(AtomicU64);

impl Total {
    pub(super) fn add(&self, count: u64) {
        let before = self.0.load(Ordering::Relaxed);
        self.0.store(before.wrapping_add(count), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
