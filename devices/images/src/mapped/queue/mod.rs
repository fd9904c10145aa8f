//! One worker's queue: requests to the disk become requests to its files.

mod fill;
mod slab;

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use synthvm_block::{IoBuffer, IoDone, IoError, IoRequest, Operation, Queue};

use super::events::Events;
use super::extents::{Extents, Place};
use super::job::Job;
use super::mailbox::{Answer, Mailbox};
use super::thread::MetadataThread;
use super::{Extent, Map};
use fill::{fill_with, fill_with_zeroes};
use slab::Slab;

/// See the module. Fields drop in order: the files' queues first, which wait until nothing touches
/// the memory; the metadata thread after the map, of which it then drops the last reference.
pub(super) struct MappedQueue {
    queues: Vec<Box<dyn Queue>>,
    /// What goes to each of them next.
    batches: Vec<Vec<IoRequest>>,
    events: Events,
    /// Requests under way; the files' requests carry the number as their id.
    slots: Slab<Pending>,
    /// Requests that wait for the metadata thread; its answers carry the number as their ticket.
    lookups: Slab<Lookup>,
    done: Vec<IoDone>,
    /// Kept for their memory.
    extents: Extents,
    from_file: Vec<IoDone>,
    answers: Vec<Answer>,
    /// Where the metadata thread puts its answers. `None`: the format never needs it.
    mailbox: Option<Arc<Mailbox>>,
    map: Arc<dyn Map>,
    thread: Arc<MetadataThread>,
}

/// A request under way.
struct Pending {
    id: u32,
    stage: Stage,
    /// Where it is kept meanwhile, unless it went to the file whole.
    memory: Memory,
    /// The files' requests that are not back.
    left: usize,
    then: Then,
    result: Result<(), IoError>,
    copied: u64,
}

enum Stage {
    Moving,
    /// A flush, begun with this token.
    Flushing(u64),
}

enum Memory {
    /// With the file's request, or back from it.
    Whole(Option<Box<IoBuffer>>),
    /// The parts are with the files' requests.
    Split(Arc<IoBuffer>),
}

/// What follows when the bytes have moved.
enum Then {
    End,
    /// A flush, if structures need one: force unit access.
    Flush,
    /// The rest of a long range is cleared.
    Clear(Box<Rest>),
}

struct Rest {
    operation: Operation,
    offset: u64,
    length: u64,
}

/// What waits for the metadata thread.
enum Lookup {
    Request(IoRequest),
    /// The request in this slot, which a flush follows.
    Flush(u32),
}

impl MappedQueue {
    /// Returns a queue to the files of `map`.
    ///
    /// # Errors
    /// The system's: out of file descriptors, memory or threads.
    pub(super) fn new(map: Arc<dyn Map>, thread: Arc<MetadataThread>) -> io::Result<Self> {
        let queues = map.files().iter().map(|file| file.queue()).collect::<io::Result<Vec<_>>>()?;
        let mailbox = map.may_block().then(Mailbox::new).transpose()?.map(Arc::new);
        Ok(Self {
            batches: queues.iter().map(|_| Vec::new()).collect(),
            events: Events::of(&queues, mailbox.as_ref().map(|mailbox| mailbox.event()))?,
            queues,
            slots: Slab::new(),
            lookups: Slab::new(),
            done: Vec::new(),
            extents: Extents::default(),
            from_file: Vec::new(),
            answers: Vec::new(),
            mailbox,
            map,
            thread,
        })
    }

    fn start(&mut self, request: IoRequest) {
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
                let (operation, offset, length) = (request.operation, request.offset, request.length);
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

    /// Looks up where the request goes, if that needs no wait.
    fn try_look_up(&self, request: &IoRequest, extents: &mut Extents) -> Option<Result<(), IoError>> {
        let (offset, length) = (request.offset, request.length);
        match request.operation {
            Operation::Read => self.map.try_locate(offset, length, extents),
            Operation::Write { .. } => self.map.try_allocate(offset, length, extents),
            Operation::Flush => self.map.is_written_back().then_some(Ok(())),
            Operation::Discard => self.map.try_discard(offset, length, extents),
            Operation::WriteZeroes { unmap } => self.map.try_clear(offset, length, unmap, extents),
        }
    }

    /// Has the metadata thread look it up.
    fn look_up(&mut self, lookup: Lookup, operation: Operation, offset: u64, length: u64) {
        let ticket = self.lookups.insert(lookup);
        let job = Job::new(ticket, operation, offset, length);
        let job = match &self.mailbox {
            Some(mailbox) => self.thread.send(mailbox, job).err(),
            None => Some(job),
        };
        // Without a thread, late is better than never.
        self.answers.extend(job.map(|job| job.run(&*self.map)));
    }

    fn take_answers(&mut self) {
        if self.lookups.is_empty() {
            return;
        }
        let mut answers = std::mem::take(&mut self.answers);
        if let Some(mailbox) = &self.mailbox {
            mailbox.take(&mut answers);
        }
        for answer in answers.drain(..) {
            self.answered(&answer);
        }
        if self.answers.is_empty() {
            self.answers = answers;
        }
    }

    fn answered(&mut self, answer: &Answer) {
        match (self.lookups.take(answer.ticket), answer.result) {
            (Some(Lookup::Request(request)), Ok(bytes)) => self.proceed(request, bytes, &answer.extents),
            (Some(Lookup::Request(request)), Err(error)) => {
                self.finish(request.id, Err(error), 0, request.buffer);
            }
            (Some(Lookup::Flush(slot)), Ok(_)) => self.flush(slot, None),
            (Some(Lookup::Flush(slot)), Err(error)) => {
                if let Some(pending) = self.slots.get_mut(slot) {
                    pending.result = Err(error);
                }
                self.end(slot, None);
            }
            (None, _) => {}
        }
    }

    /// Goes on with a request whose first `bytes` bytes lie in `extents`.
    fn proceed(&mut self, request: IoRequest, bytes: u64, extents: &Extents) {
        match request.operation {
            Operation::Flush => {
                let slot = self.occupy(request.id, Memory::Whole(None), 0, Then::End);
                self.flush(slot, Some(request.buffer));
            }
            Operation::Read | Operation::Write { .. } => self.start_transfer(request, extents),
            Operation::Discard | Operation::WriteZeroes { .. } => {
                self.start_zeroes(request, bytes, extents);
            }
        }
    }

    /// Flushes all files that are written. `buffer` is the request's, if it is not kept in the slot.
    fn flush(&mut self, slot: u32, mut buffer: Option<Box<IoBuffer>>) {
        let Some(pending) = self.slots.get_mut(slot) else { return };
        let files = self.map.written_files();
        pending.stage = Stage::Flushing(self.map.flushing());
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

    fn start_transfer(&mut self, request: IoRequest, extents: &Extents) {
        let then = match request.operation {
            Operation::Write { fua: true } => Then::Flush,
            _ => Then::End,
        };
        match extents.as_slice() {
            // Empty requests have no extents.
            [] => self.finish(request.id, Ok(()), 0, request.buffer),
            [Extent { place: Place::File { file, offset }, .. }] => {
                let slot = self.occupy(request.id, Memory::Whole(None), 1, then);
                self.batches[*file].push(IoRequest { id: slot, offset: *offset, ..request });
            }
            [only] => {
                let (result, copied) = produce(only, &request.buffer, request.operation);
                self.finish(request.id, result, copied, request.buffer);
            }
            several => self.start_parts(request, several, then),
        }
    }

    fn start_parts(&mut self, request: IoRequest, extents: &[Extent], then: Then) {
        let (operation, whole) = (request.operation, Arc::new(*request.buffer));
        let slot = self.occupy(request.id, Memory::Split(Arc::clone(&whole)), 0, then);
        let (mut at, mut left, mut all, mut copied) = (0, 0, Ok(()), 0);
        for extent in extents {
            // In bounds: the extents have as many bytes as the request, and the request as many as
            // its memory.
            let Ok(part) = IoBuffer::part(&whole, at as usize, extent.length as usize) else { break };
            at += extent.length;
            if let Place::File { file, offset } = extent.place {
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
        if let Some(pending) = self.slots.get_mut(slot) {
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
        let slot = self.occupy(request.id, Memory::Whole(Some(request.buffer)), 0, then);
        let mut left = 0;
        for extent in extents.as_slice() {
            if let Place::File { file, offset } = extent.place {
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

    fn occupy(&mut self, id: u32, memory: Memory, left: usize, then: Then) -> u32 {
        let stage = Stage::Moving;
        self.slots.insert(Pending { id, stage, memory, left, then, result: Ok(()), copied: 0 })
    }

    /// `left` requests of the files will come back for `slot`; none: it is over.
    fn expect(&mut self, slot: u32, left: usize) {
        match self.slots.get_mut(slot) {
            Some(pending) if left != 0 => pending.left = left,
            _ => self.moved(slot, None),
        }
    }

    /// A file's request came back.
    fn back(&mut self, done: IoDone) {
        let Some(pending) = self.slots.get_mut(done.id) else { return };
        pending.left -= 1;
        pending.copied += done.copied;
        pending.result = pending.result.and(done.result);
        if pending.left != 0 {
            return;
        }
        let buffer = match &pending.memory {
            Memory::Whole(None) => Some(done.buffer),
            // The last part has to be gone before the whole can be taken back.
            Memory::Whole(Some(_)) | Memory::Split(_) => {
                drop(done.buffer);
                None
            }
        };
        match pending.stage {
            Stage::Flushing(token) => {
                if pending.result.is_ok() {
                    self.map.flushed(token);
                }
                self.end(done.id, buffer);
            }
            Stage::Moving => self.moved(done.id, buffer),
        }
    }

    /// All bytes of `slot` have moved, if any had to.
    fn moved(&mut self, slot: u32, buffer: Option<Box<IoBuffer>>) {
        let Some(pending) = self.slots.get_mut(slot) else { return };
        match &pending.then {
            _ if pending.result.is_err() => self.end(slot, buffer),
            // The bytes are durable, but not yet where they are.
            Then::Flush if self.map.is_unflushed() => {
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
        if let Some(Pending { id, memory: Memory::Whole(Some(buffer)), then: Then::Clear(rest), .. }) =
            self.slots.take(slot)
        {
            let Rest { operation, offset, length } = *rest;
            let request = IoRequest { id, operation, offset, length, buffer };
            self.look_up(Lookup::Request(request), operation, offset, length);
        }
    }

    fn end(&mut self, slot: u32, buffer: Option<Box<IoBuffer>>) {
        let Some(pending) = self.slots.take(slot) else { return };
        let kept = match pending.memory {
            Memory::Whole(kept) => kept,
            Memory::Split(whole) => Arc::into_inner(whole).map(Box::new),
        };
        // One of them is there: parts are dropped as they come back.
        let buffer = kept.or(buffer).unwrap_or_else(no_buffer);
        self.finish(pending.id, pending.result, pending.copied, buffer);
    }

    fn finish(&mut self, id: u32, result: Result<(), IoError>, copied: u64, buffer: Box<IoBuffer>) {
        self.done.push(IoDone { id, result, copied, buffer });
    }

    fn submit_batches(&mut self) -> bool {
        let mut any = false;
        for (queue, batch) in self.queues.iter_mut().zip(&mut self.batches) {
            if !batch.is_empty() {
                any = true;
                queue.submit(batch);
            }
        }
        any
    }
}

impl Queue for MappedQueue {
    fn submit(&mut self, requests: &mut Vec<IoRequest>) {
        for request in requests.drain(..) {
            self.start(request);
        }
        self.submit_batches();
    }

    fn poll(&mut self, done: &mut Vec<IoDone>) {
        loop {
            self.take_answers();
            let mut from_file = std::mem::take(&mut self.from_file);
            for queue in &mut self.queues {
                queue.poll(&mut from_file);
            }
            for one in from_file.drain(..) {
                self.back(one);
            }
            self.from_file = from_file;
            // What was begun here may be finished already, and then no event tells.
            if !self.submit_batches() && self.answers.is_empty() {
                break;
            }
        }
        done.append(&mut self.done);
    }

    fn event(&self) -> Option<RawFd> {
        self.events.descriptor()
    }
}

impl Drop for MappedQueue {
    /// Forgets what waits for the metadata thread, which may be busy with other requests for long.
    fn drop(&mut self) {
        if let Some(mailbox) = &self.mailbox {
            self.thread.forget(mailbox);
        }
    }
}

/// Puts the bytes of an extent that lies in no file into `buffer`. Returns how many were copied.
fn produce(extent: &Extent, buffer: &IoBuffer, operation: Operation) -> (Result<(), IoError>, u64) {
    match &extent.place {
        // Only a file can be written; the guest's memory stays as it is.
        _ if operation != Operation::Read => (Err(IoError::Os(libc::EIO)), 0),
        Place::Zero => {
            fill_with_zeroes(buffer);
            (Ok(()), 0)
        }
        Place::Memory { bytes, offset } => {
            let bytes = bytes.get(*offset..).and_then(|bytes| bytes.get(..extent.length as usize));
            let Some(bytes) = bytes else { return (Err(IoError::Os(libc::EIO)), 0) };
            fill_with(buffer, bytes);
            (Ok(()), extent.length)
        }
        Place::File { .. } => (Ok(()), 0),
    }
}

fn no_buffer() -> Box<IoBuffer> {
    Box::new(IoBuffer::from_vec(Vec::new()))
}
