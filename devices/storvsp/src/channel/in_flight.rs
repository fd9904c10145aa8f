//! The in-flight table: the guest's half of each request, and recycled idle requests.

use vmbus_gpadl::GuestRam;

use crate::protocol::Completer;
use synthvm_block::{IoBuffer, Operation, Request};

/// Maximum number of requests in flight on one channel. Linux has up to 364 on a ring of its
/// default size. The worker stops reading the ring at this limit, which blocks the guest.
pub(super) const MAX_IN_FLIGHT: usize = 1024;

/// The guest's half of a request in flight: everything that its completion needs. Operation, range
/// and memory are in the [`Request`].
#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    pub(super) transaction_id: u64,
    pub(super) completion_requested: bool,
    pub(super) completer: Completer,
    /// The compound command of a subrequest. Its end completes the guest's command.
    pub(super) compound: Option<u8>,
    /// The reset epoch in which the request began (see `resets`).
    pub(super) epoch: u32,
    /// The queue that has the request: no other queue can complete it.
    pub(super) queue: QueueKey,
}

/// Identifies the queue of a LUN, or the helper threads that answer queries (0). Keys of removed
/// queues are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueKey(u32);

impl QueueKey {
    pub(super) const QUERIES: Self = Self(0);

    /// Returns the key of the next LUN's queue.
    pub(super) fn next(self) -> Self {
        Self(self.0.checked_add(1).unwrap_or(1))
    }
}

/// The requests in flight of a channel. Entries and requests are allocated on demand and recycled,
/// the most recent one first.
#[derive(Debug)]
pub(super) struct InFlightTable {
    ram: GuestRam,
    entries: Vec<Entry>,
    free: Vec<u32>,
    idle: Vec<Box<Request>>,
}

/// An entry of the table. Its tag has the index in the low 32 bits and the number of uses above, so
/// a stale tag never names a later request.
#[derive(Debug)]
struct Entry {
    uses: u32,
    request: Option<InFlight>,
}

impl InFlightTable {
    pub(super) fn new(ram: GuestRam) -> Self {
        Self { ram, entries: Vec::new(), free: Vec::new(), idle: Vec::new() }
    }

    /// Returns true if another request can be taken.
    pub(super) fn has_space(&self) -> bool {
        self.count() < MAX_IN_FLIGHT
    }

    /// Returns the number of requests in flight.
    pub(super) fn count(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Returns an idle request with an empty buffer for guest memory.
    pub(super) fn take_idle(&mut self) -> Box<Request> {
        self.idle.pop().unwrap_or_else(|| {
            Request::new(0, Operation::Flush, 0, 0, IoBuffer::new(self.ram.clone()))
        })
    }

    /// Recycles a request.
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

    /// Removes the request with `tag` that `queue` has completed. Returns `None` if `queue` has no
    /// such request: a defective backend that completes a request twice, or invents one, must not
    /// complete another request of the guest.
    pub(super) fn remove(&mut self, tag: u64, queue: QueueKey) -> Option<InFlight> {
        let (uses, index) = ((tag >> 32) as u32, tag as u32);
        let entry = self.entries.get_mut(index as usize).filter(|entry| entry.uses == uses)?;
        let request = entry.request.take_if(|request| request.queue == queue)?;
        entry.uses = entry.uses.wrapping_add(1);
        self.free.push(index);
        Some(request)
    }
}
