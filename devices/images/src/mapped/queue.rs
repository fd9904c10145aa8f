//! One worker's queue: requests to the disk become requests to its files.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use synthvm_storage::backend::{IoBuffer, IoDone, IoError, IoRequest, Operation, Queue};

use super::events::Events;
use super::{Extents, Map, Place};

/// See the module. Fields drop in order: the files' queues first, which wait until nothing touches the memory.
pub(super) struct MappedQueue {
    queues: Vec<Box<dyn Queue>>,
    /// What goes to each of them next.
    batches: Vec<Vec<IoRequest>>,
    events: Events,
    map: Arc<dyn Map>,
    /// Requests under way; the files' requests carry the index as their id.
    slots: Vec<Option<Pending>>,
    free: Vec<u32>,
    done: Vec<IoDone>,
    /// Kept for their memory.
    extents: Extents,
    from_file: Vec<IoDone>,
}

/// A request under way.
struct Pending {
    id: u32,
    stage: Stage,
    /// Where it is kept meanwhile, unless it went to the file whole.
    memory: Memory,
    /// The files' requests that are not back.
    left: usize,
    /// Durable before it is done.
    fua: bool,
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

impl MappedQueue {
    pub(super) fn new(map: Arc<dyn Map>) -> io::Result<Self> {
        let queues = map.files().iter().map(|file| file.queue()).collect::<io::Result<Vec<_>>>()?;
        Ok(Self {
            batches: queues.iter().map(|_| Vec::new()).collect(),
            events: Events::of(&queues)?,
            queues,
            map,
            slots: Vec::new(),
            free: Vec::new(),
            done: Vec::new(),
            extents: Extents::default(),
            from_file: Vec::new(),
        })
    }

    fn start(&mut self, request: IoRequest) {
        let mut extents = std::mem::take(&mut self.extents);
        extents.clear();
        match self.prepare(&request, &mut extents) {
            Err(error) => self.finish(request.id, Err(error), 0, request.buffer),
            Ok(()) => match request.operation {
                Operation::Flush => self.start_flush(request.id, request.buffer),
                Operation::Read | Operation::Write { .. } => self.start_transfer(request, &extents),
                Operation::Discard | Operation::WriteZeroes { .. } => self.start_zeroes(request, &extents),
            },
        }
        self.extents = extents;
    }

    /// Where the request goes.
    fn prepare(&self, request: &IoRequest, extents: &mut Extents) -> Result<(), IoError> {
        let geometry = self.map.geometry();
        let (offset, length) = (request.offset, request.length);
        if offset.checked_add(length).is_none_or(|end| end > geometry.capacity) {
            return Err(IoError::EndOfImage);
        }
        match request.operation {
            Operation::Read => self.map.locate(offset, length, extents),
            Operation::Flush => Ok(()),
            _ if geometry.read_only => Err(IoError::ReadOnly),
            Operation::Write { .. } => self.map.allocate(offset, length, extents),
            Operation::Discard => self.map.clear(offset, length, true, extents),
            Operation::WriteZeroes { unmap } => self.map.clear(offset, length, unmap, extents),
        }
    }

    fn start_flush(&mut self, id: u32, buffer: Box<IoBuffer>) {
        let slot = self.occupy(id, Memory::Whole(None), 1, false);
        self.flush(slot, buffer);
    }

    fn flush(&mut self, slot: u32, buffer: Box<IoBuffer>) {
        let token = self.map.flushing();
        if let Some(pending) = self.slots[slot as usize].as_mut() {
            pending.stage = Stage::Flushing(token);
            pending.left = 1;
        }
        self.batches[0].push(IoRequest {
            id: slot,
            operation: Operation::Flush,
            offset: 0,
            length: 0,
            buffer,
        });
    }

    fn start_transfer(&mut self, request: IoRequest, extents: &Extents) {
        let fua = request.operation == Operation::Write { fua: true };
        match extents.as_slice() {
            // Empty requests have no extents.
            [] => self.finish(request.id, Ok(()), 0, request.buffer),
            [only] => match only.place {
                Place::Zero => {
                    fill_with_zeroes(&request.buffer);
                    self.finish(request.id, Ok(()), 0, request.buffer);
                }
                Place::File { file, offset } => {
                    let slot = self.occupy(request.id, Memory::Whole(None), 1, fua);
                    self.batches[file].push(IoRequest { id: slot, offset, ..request });
                }
            },
            several => {
                let whole = Arc::new(*request.buffer);
                let slot = self.occupy(request.id, Memory::Split(Arc::clone(&whole)), 0, fua);
                let mut at = 0;
                let mut left = 0;
                for extent in several {
                    // In bounds: the extents have as many bytes as the request, and the request as many as its memory.
                    let Ok(part) = IoBuffer::part(&whole, at as usize, extent.length as usize) else { break };
                    at += extent.length;
                    match extent.place {
                        Place::Zero => fill_with_zeroes(&part),
                        Place::File { file, offset } => {
                            left += 1;
                            let buffer = Box::new(part);
                            let (operation, length) = (request.operation, extent.length);
                            self.batches[file].push(IoRequest {
                                id: slot,
                                operation,
                                offset,
                                length,
                                buffer,
                            });
                        }
                    }
                }
                drop(whole);
                self.expect(slot, left);
            }
        }
    }

    fn start_zeroes(&mut self, request: IoRequest, extents: &Extents) {
        let unmap = request.operation != Operation::WriteZeroes { unmap: false };
        let slot = self.occupy(request.id, Memory::Whole(Some(request.buffer)), 0, false);
        let mut left = 0;
        for extent in extents.as_slice() {
            if let Place::File { file, offset } = extent.place {
                left += 1;
                self.batches[file].push(IoRequest {
                    id: slot,
                    operation: Operation::WriteZeroes { unmap },
                    offset,
                    length: extent.length,
                    buffer: Box::new(IoBuffer::from_vec(Vec::new())),
                });
            }
        }
        self.expect(slot, left);
    }

    fn occupy(&mut self, id: u32, memory: Memory, left: usize, fua: bool) -> u32 {
        let pending = Pending { id, stage: Stage::Moving, memory, left, fua, result: Ok(()), copied: 0 };
        if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = Some(pending);
            return slot;
        }
        self.slots.push(Some(pending));
        (self.slots.len() - 1) as u32
    }

    /// `left` requests of the files will come back for `slot`; none: it is over.
    fn expect(&mut self, slot: u32, left: usize) {
        match &mut self.slots[slot as usize] {
            Some(pending) if left != 0 => pending.left = left,
            _ => self.moved(slot, None),
        }
    }

    /// A file's request came back.
    fn back(&mut self, done: IoDone) {
        let Some(pending) = self.slots.get_mut(done.id as usize).and_then(Option::as_mut) else { return };
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
        let Some(pending) = self.slots[slot as usize].as_mut() else { return };
        if pending.fua && pending.result.is_ok() && self.map.is_unflushed() {
            // The bytes are durable, but not yet where they are.
            if let Some(buffer) = buffer {
                pending.memory = Memory::Whole(Some(buffer));
            }
            self.flush(slot, Box::new(IoBuffer::from_vec(Vec::new())));
            return;
        }
        self.end(slot, buffer);
    }

    fn end(&mut self, slot: u32, buffer: Option<Box<IoBuffer>>) {
        let Some(pending) = self.slots[slot as usize].take() else { return };
        self.free.push(slot);
        let kept = match pending.memory {
            Memory::Whole(kept) => kept,
            Memory::Split(whole) => Arc::into_inner(whole).map(Box::new),
        };
        // One of them is there: parts are dropped as they come back.
        let buffer = kept.or(buffer).unwrap_or_else(|| Box::new(IoBuffer::from_vec(Vec::new())));
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
            let mut from_file = std::mem::take(&mut self.from_file);
            for queue in &mut self.queues {
                queue.poll(&mut from_file);
            }
            for one in from_file.drain(..) {
                self.back(one);
            }
            self.from_file = from_file;
            // What was begun here may be finished already, and then no event tells.
            if !self.submit_batches() {
                break;
            }
        }
        done.append(&mut self.done);
    }

    fn event(&self) -> Option<RawFd> {
        self.events.descriptor()
    }
}

fn fill_with_zeroes(buffer: &IoBuffer) {
    static ZEROES: [u8; 4096] = [0; 4096];
    for slice in buffer.slices() {
        let mut at = 0;
        while at < slice.len() {
            let len = (slice.len() - at).min(ZEROES.len());
            if let Ok(piece) = slice.subslice(at, len) {
                piece.copy_from(&ZEROES[..len]);
            }
            at += len;
        }
    }
}
