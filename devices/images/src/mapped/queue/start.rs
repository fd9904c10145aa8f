//! The start of requests: from locations to subrequests.

use std::sync::Arc;

use synthvm_block::{IoBuffer, IoError, IoRequest, Operation};

use super::fill::{fill_with, fill_with_zeroes};
use super::pending::{Compound, Lookup, Memory, Pending, Rest, Stage, Then};
use super::{MappedQueue, no_buffer};
use crate::mapped::{Clearing, Extent, Extents, InFile, Known, Location};

impl MappedQueue {
    /// Points the request at its file, if all of its bytes are known to lie there in one run.
    /// Returns the index of the file.
    pub(super) fn redirect(&mut self, request: &mut IoRequest) -> Option<usize> {
        let (write, fua) = match request.operation {
            Operation::Read => (false, false),
            Operation::Write { fua } => (true, fua),
            _ => return None,
        };
        let InFile { file, offset } = self.map.try_run(write, request.offset, request.length)?;
        request.id = self.in_flight.insert(Pending::Whole { id: request.id, fua });
        request.offset = offset;
        Some(file)
    }

    /// Starts any request.
    pub(super) fn start(&mut self, request: IoRequest) {
        if let Err(error) = self.check(&request) {
            return self.finish(request.id, Err(error), 0, request.buffer);
        }
        let mut extents = std::mem::take(&mut self.extents);
        extents.clear();
        match self.try_look_up(&request, &mut extents) {
            Some(Ok(())) => {
                let length = request.length;
                self.proceed(request, length, &extents);
            }
            Some(Err(error)) => self.finish(request.id, Err(error), 0, request.buffer),
            None => {
                let IoRequest { operation, offset, length, .. } = request;
                self.look_up(Lookup::Request(request), operation, offset, length);
            }
        }
        self.extents = extents;
    }

    fn check(&self, request: &IoRequest) -> Result<(), IoError> {
        let geometry = self.map.geometry();
        if request.offset.checked_add(request.length).is_none_or(|end| end > geometry.capacity) {
            return Err(IoError::EndOfImage);
        }
        match request.operation {
            Operation::Read | Operation::Flush => Ok(()),
            _ if geometry.read_only => Err(IoError::ReadOnly),
            _ => Ok(()),
        }
    }

    /// Looks up the locations of the request, if that needs no wait.
    fn try_look_up(&self, request: &IoRequest, extents: &mut Extents) -> Known {
        let (offset, length) = (request.offset, request.length);
        match request.operation {
            Operation::Read => self.map.try_locate(offset, length, extents),
            Operation::Write { .. } => self.map.try_allocate(offset, length, extents),
            Operation::Flush => self.map.is_written_back().then_some(Ok(())),
            Operation::Discard => self.map.try_clear(Clearing::Discard, offset, length, extents),
            Operation::WriteZeroes { unmap } => {
                self.map.try_clear(Clearing::Zero { unmap }, offset, length, extents)
            }
        }
    }

    /// Continues a request whose first `bytes` bytes lie in `extents`.
    pub(super) fn proceed(&mut self, request: IoRequest, bytes: u64, extents: &Extents) {
        match request.operation {
            Operation::Flush => {
                let slot = self.insert(request.id, Memory::Whole(None), Then::End);
                self.flush(slot, Some(request.buffer));
            }
            Operation::Read => self.start_transfer(request, extents, false),
            Operation::Write { fua } => self.start_transfer(request, extents, fua),
            Operation::Discard | Operation::WriteZeroes { .. } => {
                self.start_zeroes(request, bytes, extents);
            }
        }
    }

    /// Flushes all files that are written. `buffer` is the request's memory, if the slot does not
    /// hold it.
    pub(super) fn flush(&mut self, slot: u32, mut buffer: Option<Box<IoBuffer>>) {
        let Some(Pending::Compound(pending)) = self.in_flight.get_mut(slot) else { return };
        let files = self.map.written_files();
        pending.stage = Stage::Flushing(self.map.changes().flushing());
        pending.left = files.len();
        if files.len() != 1 && buffer.is_some() {
            pending.memory = Memory::Whole(buffer.take());
        }
        for &file in files {
            self.batches[file].push(IoRequest {
                id: slot,
                operation: Operation::Flush,
                offset: 0,
                length: 0,
                buffer: buffer.take().unwrap_or_else(no_buffer),
            });
        }
    }

    fn start_transfer(&mut self, request: IoRequest, extents: &Extents, fua: bool) {
        match extents.as_slice() {
            // Empty requests have no extents.
            [] => self.finish(request.id, Ok(()), 0, request.buffer),
            [Extent { location: Location::File { file, offset }, .. }] => {
                let id = self.in_flight.insert(Pending::Whole { id: request.id, fua });
                self.batches[*file].push(IoRequest { id, offset: *offset, ..request });
            }
            [only] => {
                let (result, copied) = produce(only, &request.buffer, request.operation);
                self.finish(request.id, result, copied, request.buffer);
            }
            several => {
                self.start_parts(request, several, if fua { Then::Flush } else { Then::End });
            }
        }
    }

    fn start_parts(&mut self, request: IoRequest, extents: &[Extent], then: Then) {
        let (operation, whole) = (request.operation, Arc::new(*request.buffer));
        let slot = self.insert(request.id, Memory::Split(Arc::clone(&whole)), then);
        let (mut at, mut left, mut copied, mut all) = (0, 0, 0, Ok(()));
        for extent in extents {
            // The part is in bounds: the extents have as many bytes as the request, and the request
            // as many as its memory.
            let Ok(part) = IoBuffer::part(&whole, at as usize, extent.length as usize) else {
                break;
            };
            at += extent.length;
            if let Location::File { file, offset } = extent.location {
                left += 1;
                let (buffer, length) = (Box::new(part), extent.length);
                self.batches[file].push(IoRequest { id: slot, operation, offset, length, buffer });
            } else {
                let (result, bytes) = produce(extent, &part, operation);
                all = all.and(result);
                copied += bytes;
            }
        }
        drop(whole);
        if let Some(Pending::Compound(pending)) = self.in_flight.get_mut(slot) {
            (pending.result, pending.copied) = (all, copied);
        }
        self.expect(slot, left);
    }

    fn start_zeroes(&mut self, request: IoRequest, bytes: u64, extents: &Extents) {
        let operation = request.operation;
        let unmap = operation != Operation::WriteZeroes { unmap: false };
        let then = if bytes < request.length {
            let (offset, length) = (request.offset + bytes, request.length - bytes);
            Then::Clear(Box::new(Rest { operation, offset, length }))
        } else {
            Then::End
        };
        let slot = self.insert(request.id, Memory::Whole(Some(request.buffer)), then);
        let mut left = 0;
        for extent in extents.as_slice() {
            if let Location::File { file, offset } = extent.location {
                left += 1;
                self.batches[file].push(IoRequest {
                    id: slot,
                    operation: Operation::WriteZeroes { unmap },
                    offset,
                    length: extent.length,
                    buffer: no_buffer(),
                });
            }
        }
        self.expect(slot, left);
    }

    fn insert(&mut self, id: u32, memory: Memory, then: Then) -> u32 {
        self.in_flight.insert(Pending::Compound(Compound::new(id, memory, then)))
    }

    /// Makes `slot` wait for `left` subrequests. If there are none, its bytes have moved.
    fn expect(&mut self, slot: u32, left: usize) {
        match self.in_flight.get_mut(slot) {
            Some(Pending::Compound(pending)) if left != 0 => pending.left = left,
            _ => self.moved(slot, None),
        }
    }
}

/// Fills `buffer` with the bytes of an extent that lies in no file. Returns the number of copied
/// bytes.
fn produce(extent: &Extent, buffer: &IoBuffer, operation: Operation) -> (Result<(), IoError>, u64) {
    match &extent.location {
        // Only a file can be written. The guest's memory stays unchanged.
        _ if operation != Operation::Read => (Err(IoError::Os(libc::EIO)), 0),
        Location::Zero => {
            fill_with_zeroes(buffer);
            (Ok(()), 0)
        }
        Location::Memory { bytes, offset } => {
            let bytes = bytes.get(*offset..).and_then(|bytes| bytes.get(..extent.length as usize));
            let Some(bytes) = bytes else { return (Err(IoError::Os(libc::EIO)), 0) };
            fill_with(buffer, bytes);
            (Ok(()), extent.length)
        }
        Location::File { .. } => (Ok(()), 0),
    }
}
