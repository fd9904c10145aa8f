//! Bytes that wait for a viewer.

use std::time::Instant;

/// Bytes that wait for a viewer.
#[derive(Debug, Default)]
pub(super) struct Output {
    bytes: Vec<u8>,
    /// Bytes at the start that were sent.
    sent: usize,
    /// When the viewer last took bytes, or the first ones began to wait.
    since: Option<Instant>,
}

impl Output {
    /// Returns the bytes, to append to.
    pub(super) fn bytes(&mut self) -> &mut Vec<u8> {
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            self.sent = 0;
            self.since = None;
        }
        &mut self.bytes
    }

    pub(super) fn unsent(&mut self) -> &[u8] {
        self.since.get_or_insert_with(Instant::now);
        &self.bytes[self.sent..]
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Notes that `length` bytes were sent.
    pub(super) fn sent(&mut self, length: usize) {
        self.sent += length;
        self.since = (!self.is_empty()).then(Instant::now);
        // Moves the rest only if it is short.
        if self.sent > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Returns since when the viewer has taken no bytes. `None`: none wait.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        if self.is_empty() { None } else { self.since }
    }
}
