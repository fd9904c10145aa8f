//! The completion of subrequests and requests.

use std::sync::Arc;

use synthvm_block::{IoBuffer, IoDone, IoError, IoRequest, Operation};

use super::pending::{Compound, Lookup, Memory, Pending, Rest, Stage, Then};
use super::{MappedQueue, no_buffer};

impl MappedQueue {
    /// Finishes a request whose only subrequest, with all of its memory, has completed, unless a
    /// flush follows. Returns the request's id.
    pub(super) fn finish_whole(&mut self, done: &IoDone) -> Option<u32> {
        let Some(&mut Pending::Whole { id, fua }) = self.in_flight.get_mut(done.id) else {
            return None;
        };
        // The bytes may be durable, but the structures that locate them are not.
        if fua && done.result.is_ok() && self.map.changes().is_unflushed() {
            return None;
        }
        self.in_flight.remove(done.id);
        Some(id)
    }

    /// Handles a completed subrequest.
    pub(super) fn back(&mut self, done: IoDone) {
        let pending = match self.in_flight.get_mut(done.id) {
            Some(Pending::Compound(pending)) => pending,
            Some(pending @ &mut Pending::Whole { id, fua }) => {
                let then = if fua { Then::Flush } else { Then::End };
                let mut compound = Compound::new(id, Memory::Whole(None), then);
                (compound.result, compound.copied) = (done.result, done.copied);
                *pending = Pending::Compound(compound);
                return self.moved(done.id, Some(done.buffer));
            }
            None => return,
        };
        pending.left -= 1;
        pending.copied += done.copied;
        pending.result = pending.result.and(done.result);
        if pending.left != 0 {
            return;
        }
        let buffer = match &pending.memory {
            Memory::Whole(None) => Some(done.buffer),
            // The last part must be dropped before the whole memory can be taken back.
            Memory::Whole(Some(_)) | Memory::Split(_) => {
                drop(done.buffer);
                None
            }
        };
        match pending.stage {
            Stage::Flushing(token) => {
                if pending.result.is_ok() {
                    self.map.changes().flushed(token);
                }
                self.end(done.id, buffer);
            }
            Stage::Moving => self.moved(done.id, buffer),
        }
    }

    /// Continues the request in `slot`, all bytes of which have moved.
    pub(super) fn moved(&mut self, slot: u32, buffer: Option<Box<IoBuffer>>) {
        let Some(Pending::Compound(pending)) = self.in_flight.get_mut(slot) else { return };
        match &pending.then {
            _ if pending.result.is_err() => self.end(slot, buffer),
            // The bytes are durable, but the structures that locate them are not.
            Then::Flush if self.map.changes().is_unflushed() => {
                if buffer.is_some() {
                    pending.memory = Memory::Whole(buffer);
                }
                if self.map.is_written_back() {
                    self.flush(slot, None);
                } else {
                    self.look_up(Lookup::Flush(slot), Operation::Flush, 0, 0);
                }
            }
            Then::Clear(_) => self.clear_rest(slot),
            Then::End | Then::Flush => self.end(slot, buffer),
        }
    }

    fn clear_rest(&mut self, slot: u32) {
        let Some(Pending::Compound(pending)) = self.in_flight.take(slot) else { return };
        let Compound { id, memory: Memory::Whole(Some(buffer)), then: Then::Clear(rest), .. } =
            pending
        else {
            return;
        };
        let Rest { operation, offset, length } = *rest;
        let request = IoRequest { id, operation, offset, length, buffer };
        self.look_up(Lookup::Request(request), operation, offset, length);
    }

    /// Fails the request in `slot`, which keeps its memory.
    pub(super) fn fail(&mut self, slot: u32, error: IoError) {
        if let Some(Pending::Compound(pending)) = self.in_flight.get_mut(slot) {
            pending.result = Err(error);
        }
        self.end(slot, None);
    }

    fn end(&mut self, slot: u32, buffer: Option<Box<IoBuffer>>) {
        let Some(Pending::Compound(pending)) = self.in_flight.take(slot) else { return };
        let kept = match pending.memory {
            Memory::Whole(kept) => kept,
            Memory::Split(whole) => Arc::into_inner(whole).map(Box::new),
        };
        // One of the two exists. Parts are dropped when they complete.
        let buffer = kept.or(buffer).unwrap_or_else(no_buffer);
        self.finish(pending.id, pending.result, pending.copied, buffer);
    }

    pub(super) fn finish(
        &mut self,
        id: u32,
        result: Result<(), IoError>,
        copied: u64,
        buffer: Box<IoBuffer>,
    ) {
        self.done.push(IoDone { id, result, copied, buffer });
    }
}
