//! The completion of subrequests and requests.

use std::sync::Arc;

use synthvm_block::{Completion, IoBuffer, IoError, Operation};

use super::MappedQueue;
use super::pending::{Compound, Lookup, Pending, Stage, Then};

impl MappedQueue {
    /// Finishes a request that was at a file as a whole, unless a flush follows. Returns whether it
    /// did.
    pub(super) fn finish_whole(&mut self, done: &mut Completion) -> bool {
        let slot = done.request.tag;
        let Some(&mut Pending::Whole { origin, fua }) = self.in_flight.get_mut(slot) else {
            return false;
        };
        // The bytes may be durable, but the structures that locate them are not.
        if fua && done.result.is_ok() && self.map.changes().is_unflushed() {
            return false;
        }
        self.in_flight.remove(slot);
        origin.restore(&mut done.request);
        true
    }

    /// Handles a completed subrequest.
    pub(super) fn back(&mut self, done: Completion) {
        let Completion { mut request, result, copied } = done;
        let slot = request.tag;
        let pending = match self.in_flight.get_mut(slot) {
            Some(Pending::Compound(pending)) => pending,
            Some(pending @ &mut Pending::Whole { origin, fua }) => {
                origin.restore(&mut request);
                let then = if fua { Then::Flush } else { Then::End };
                let compound = Compound::new(request, then);
                *pending = Pending::Compound(Compound { result, copied, ..compound });
                return self.moved(slot);
            }
            None => return,
        };
        // A part has to be gone before the whole can be taken back.
        drop(request);
        pending.left -= 1;
        pending.copied += copied;
        pending.result = pending.result.and(result);
        if pending.left != 0 {
            return;
        }
        match pending.stage {
            Stage::Flushing(token) => {
                if pending.result.is_ok() {
                    self.map.changes().flushed(token);
                }
                self.end(slot);
            }
            Stage::Moving => self.moved(slot),
        }
    }

    /// Continues the request in `slot`, all bytes of which have moved.
    pub(super) fn moved(&mut self, slot: u64) {
        let Some(Pending::Compound(pending)) = self.in_flight.get_mut(slot) else { return };
        match pending.then {
            _ if pending.result.is_err() => self.end(slot),
            // The bytes are durable, but the structures that locate them are not.
            Then::Flush if self.map.changes().is_unflushed() => {
                if self.map.is_written_back() {
                    self.flush(slot);
                } else {
                    self.look_up(Lookup::Flush(slot), Operation::Flush, 0, 0);
                }
            }
            Then::Clear(progress) => {
                if let Some(Pending::Compound(pending)) = self.in_flight.take(slot) {
                    self.look_up_rest(pending.request, progress);
                }
            }
            Then::End | Then::Flush => self.end(slot),
        }
    }

    /// Fails the request in `slot`, which keeps its memory.
    pub(super) fn fail(&mut self, slot: u64, error: IoError) {
        if let Some(Pending::Compound(pending)) = self.in_flight.get_mut(slot) {
            pending.result = Err(error);
        }
        self.end(slot);
    }

    fn end(&mut self, slot: u64) {
        let Some(Pending::Compound(pending)) = self.in_flight.take(slot) else { return };
        let Compound { mut request, split, result, copied, .. } = pending;
        if let Some(whole) = split {
            // One of the two exists. Parts are dropped when they complete.
            request.buffer = Arc::into_inner(whole).unwrap_or_else(IoBuffer::empty);
        }
        self.done.push(request.complete(result, copied));
    }
}
