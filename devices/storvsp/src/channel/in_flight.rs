//! Requests in flight: their memory, and how to complete them.

use vmbus_gpadl::GuestRam;

use crate::protocol::Completer;
use synthvm_block::{IoBuffer, Operation};

/// Most requests in flight on one channel. Linux has up to 364 on a ring of its default size;
/// beyond this the ring is left unread, which is all the back-pressure that a guest needs.
pub(super) const MAX_IN_FLIGHT: usize = 1024;

/// A request that a queue works on.
#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    pub(super) transaction_id: u64,
    pub(super) completion_requested: bool,
    pub(super) completer: Completer,
    pub(super) operation: Operation,
    pub(super) offset: u64,
    pub(super) length: u64,
    /// The compound command that it is a part of; then only that command's end completes it.
    pub(super) compound: Option<u8>,
    /// Which resets it came before (see `resets`).
    pub(super) epoch: u32,
}

/// The requests in flight of a channel, by number from 0 on. Places and buffers are made when they
/// are first needed, and then used again, the last one first.
#[derive(Debug)]
pub(super) struct InFlightTable {
    ram: GuestRam,
    in_flight: Vec<Option<InFlight>>,
    free: Vec<u32>,
    #[expect(clippy::vec_box, reason = "they go to the backend and come back as boxes")]
    buffers: Vec<Box<IoBuffer>>,
}

impl InFlightTable {
    pub(super) fn new(ram: GuestRam) -> Self {
        Self { ram, in_flight: Vec::new(), free: Vec::new(), buffers: Vec::new() }
    }

    /// Another request can be taken.
    pub(super) fn has_space(&self) -> bool {
        self.count() < MAX_IN_FLIGHT
    }

    /// Requests in flight.
    pub(super) fn count(&self) -> usize {
        self.in_flight.len() - self.free.len()
    }

    /// An idle buffer.
    pub(super) fn take_buffer(&mut self) -> Box<IoBuffer> {
        self.buffers.pop().unwrap_or_else(|| Box::new(IoBuffer::new(self.ram.clone())))
    }

    /// Gives a buffer back.
    pub(super) fn return_buffer(&mut self, buffer: Box<IoBuffer>) {
        self.buffers.push(buffer);
    }

    /// Remembers a request. Returns the id that the backend gives back.
    pub(super) fn insert(&mut self, request: InFlight) -> u32 {
        if let Some(id) = self.free.pop() {
            self.in_flight[id as usize] = Some(request);
            return id;
        }
        self.in_flight.push(Some(request));
        (self.in_flight.len() - 1) as u32
    }

    /// Ends a request. `None` for an id that is not in flight: a backend that answers twice must
    /// not complete somebody else's request.
    pub(super) fn remove(&mut self, id: u32) -> Option<InFlight> {
        let request = self.in_flight.get_mut(id as usize)?.take()?;
        self.free.push(id);
        Some(request)
    }
}
