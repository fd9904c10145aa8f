//! The start of requests: from locations to subrequests.

use std::sync::Arc;

use synthvm_block::{IoBuffer, IoError, Operation, Request};

use super::MappedQueue;
use super::fill::{fill_with, fill_with_zeroes};
use super::pending::{Compound, Lookup, Origin, Pending, Stage, Then};
use crate::mapped::{Clearing, Extent, Extents, InFile, Known, Location};

impl MappedQueue {
    /// Points the request at its file, if all of its bytes are known to lie there in one run.
    /// Returns the index of the file.
    pub(super) fn redirect(&mut self, request: &mut Request) -> Option<usize> {
        let (write, fua) = match request.operation {
            Operation::Read => (false, false),
            Operation::Write { fua } => (true, fua),
            _ => return None,
        };
        let InFile { file, offset } = self.map.try_run(write, request.offset, request.length)?;
        self.send_whole(request, offset, fua);
        Some(file)
    }

    /// Points the request at `offset` of a file, and remembers where it came from.
    fn send_whole(&mut self, request: &mut Request, offset: u64, fua: bool) {
        let tag = self.in_flight.next();
        let origin = Origin::redirect(request, tag, offset);
        self.in_flight.insert(Pending::Whole { origin, fua });
    }

    /// Starts any request.
    pub(super) fn start(&mut self, request: Box<Request>) {
        if let Err(error) = self.check(&request) {
            return self.done.push(request.complete(Err(error), 0));
        }
        let mut extents = std::mem::take(&mut self.extents);
        extents.clear();
        match self.try_look_up(&request, &mut extents) {
            Some(Ok(())) => {
                let length = request.length;
                self.proceed(request, 0, length, &extents);
            }
            Some(Err(error)) => self.done.push(request.complete(Err(error), 0)),
            None => self.look_up_rest(request, 0),
        }
        self.extents = extents;
    }

    /// Makes the metadata thread look up the range of `request`, without its first `progress`
    /// bytes.
    pub(super) fn look_up_rest(&mut self, request: Box<Request>, progress: u64) {
        let Request { operation, offset, length, .. } = *request;
        let (offset, length) = (offset + progress, length - progress);
        self.look_up(Lookup::Request { request, progress }, operation, offset, length);
    }

    fn check(&self, request: &Request) -> Result<(), IoError> {
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
    fn try_look_up(&self, request: &Request, extents: &mut Extents) -> Known {
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

    /// Continues a request of which `progress` bytes are done, and the next `bytes` lie in
    /// `extents`.
    pub(super) fn proceed(
        &mut self,
        request: Box<Request>,
        progress: u64,
        bytes: u64,
        extents: &Extents,
    ) {
        match request.operation {
            Operation::Flush => {
                let slot = self.insert(Compound::new(request, Then::End));
                self.flush(slot);
            }
            Operation::Read => self.start_transfer(request, extents, false),
            Operation::Write { fua } => self.start_transfer(request, extents, fua),
            Operation::Discard | Operation::WriteZeroes { .. } => {
                self.start_zeroes(request, progress + bytes, extents);
            }
        }
    }

    /// Flushes all files that are written, for the request in `slot`.
    pub(super) fn flush(&mut self, slot: u64) {
        let Some(Pending::Compound(pending)) = self.in_flight.get_mut(slot) else { return };
        let files = self.map.written_files();
        pending.stage = Stage::Flushing(self.map.changes().flushing());
        pending.left = files.len();
        for &file in files {
            self.batches[file].push(Request::flush(slot));
        }
    }

    fn start_transfer(&mut self, mut request: Box<Request>, extents: &Extents, fua: bool) {
        match extents.as_slice() {
            // Empty requests have no extents.
            [] => self.done.push(request.complete(Ok(()), 0)),
            [Extent { location: Location::File { file, offset }, .. }] => {
                self.send_whole(&mut request, *offset, fua);
                self.batches[*file].push(request);
            }
            [only] => {
                let (result, copied) = produce(only, &request.buffer, request.operation);
                self.done.push(request.complete(result, copied));
            }
            several => {
                self.start_parts(request, several, if fua { Then::Flush } else { Then::End });
            }
        }
    }

    fn start_parts(&mut self, mut request: Box<Request>, extents: &[Extent], then: Then) {
        let operation = request.operation;
        let whole = Arc::new(std::mem::replace(&mut request.buffer, IoBuffer::empty()));
        let mut compound = Compound::new(request, then);
        compound.split = Some(Arc::clone(&whole));
        let slot = self.insert(compound);
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
                let part = Request::new(slot, operation, offset, extent.length, part);
                self.batches[file].push(part);
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

    /// Clears `extents`, which are the range of `request` up to its byte `progress`.
    fn start_zeroes(&mut self, request: Box<Request>, progress: u64, extents: &Extents) {
        let unmap = request.operation != Operation::WriteZeroes { unmap: false };
        let operation = Operation::WriteZeroes { unmap };
        let then = if progress < request.length { Then::Clear(progress) } else { Then::End };
        let slot = self.insert(Compound::new(request, then));
        let mut left = 0;
        for extent in extents.as_slice() {
            if let Location::File { file, offset } = extent.location {
                left += 1;
                let (length, buffer) = (extent.length, IoBuffer::empty());
                self.batches[file].push(Request::new(slot, operation, offset, length, buffer));
            }
        }
        self.expect(slot, left);
    }

    fn insert(&mut self, compound: Compound) -> u64 {
        self.in_flight.insert(Pending::Compound(compound))
    }

    /// Makes `slot` wait for `left` subrequests. If there are none, its bytes have moved.
    fn expect(&mut self, slot: u64, left: usize) {
        match self.in_flight.get_mut(slot) {
            Some(Pending::Compound(pending)) if left != 0 => pending.left = left,
            _ => self.moved(slot),
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
