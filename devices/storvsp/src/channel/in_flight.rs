//! The table of requests in flight: how to complete each, and the idle requests with their memory.

use vmbus_gpadl::GuestRam;

use crate::protocol::Completer;
use synthvm_block::{IoBuffer, Operation, Request};

/// Most requests in flight on one channel. Linux has up to 364 on a ring of its default size;
/// beyond this the ring is left unread, which is all the back-pressure that a guest needs.
pub(super) const MAX_IN_FLIGHT: usize = 1024;

/// The guest's part of a request that is in flight. Operation, range and memory are in the
/// [`Request`].
#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    pub(super) transaction_id: u64,
    pub(super) completion_requested: bool,
    pub(super) completer: Completer,
    /// The compound command that it is a part of; then only that command's end completes it.
    pub(super) compound: Option<u8>,
    /// Which resets it came before (see `resets`).
    pub(super) epoch: u32,
    /// Where it was sent: no other queue can complete it.
    pub(super) queue: QueueKey,
}

/// Names the receiver of a request among all that the channel ever had: the number of a LUN's
/// queue, or 0 for the helper threads that answer queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueKey(u32);

impl QueueKey {
    pub(super) const QUERIES: Self = Self(0);

    /// Returns the key of the next LUN's queue.
    pub(super) fn next(self) -> Self {
        Self(self.0.checked_add(1).unwrap_or(1))
    }
}

/// The requests in flight of a channel. Entries and requests are made when they are first needed,
/// and then used again, the last one first.
#[derive(Debug)]
pub(super) struct InFlightTable {
    ram: GuestRam,
    entries: Vec<Entry>,
    free: Vec<u32>,
    idle: Vec<Box<Request>>,
}

/// An entry is named by a tag: its index, and above it the number of its uses, so that a tag is
/// never that of a later request.
#[derive(Debug)]
struct Entry {
    uses: u32,
    request: Option<InFlight>,
}

impl InFlightTable {
    pub(super) fn new(ram: GuestRam) -> Self {
        Self { ram, entries: Vec::new(), free: Vec::new(), idle: Vec::new() }
    }

    /// Another request can be taken.
    pub(super) fn has_space(&self) -> bool {
        self.count() < MAX_IN_FLIGHT
    }

    /// Requests in flight.
    pub(super) fn count(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Returns an idle request, whose memory may be filled.
    pub(super) fn take_idle(&mut self) -> Box<Request> {
        self.idle.pop().unwrap_or_else(|| {
            Request::new(0, Operation::Flush, 0, 0, IoBuffer::new(self.ram.clone()))
        })
    }

    /// Takes an idle request back.
    pub(super) fn return_idle(&mut self, request: Box<Request>) {
        self.idle.push(request);
    }

    /// Adds an entry. Returns the tag that its request must carry.
    pub(super) fn insert(&mut self, request: InFlight) -> u64 {
        if let Some(index) = self.free.pop() {
            let entry = &mut self.entries[index as usize];
            entry.request = Some(request);
            return u64::from(entry.uses) << 32 | u64::from(index);
        }
        self.entries.push(Entry { uses: 0, request: Some(request) });
        (self.entries.len() - 1) as u64
    }

    /// Ends the request with `tag`, which `queue` has completed. `None` if no such request is in
    /// flight there: a backend that completes a request twice, or one that it never had, must not
    /// complete another request of the guest's.
    pub(super) fn remove(&mut self, tag: u64, queue: QueueKey) -> Option<InFlight> {
        let (uses, index) = ((tag >> 32) as u32, tag as u32);
        let entry = self.entries.get_mut(index as usize).filter(|entry| entry.uses == uses)?;
        let request = entry.request.take_if(|request| request.queue == queue)?;
        entry.uses = entry.uses.wrapping_add(1);
        self.free.push(index);
        Some(request)
    }
}
