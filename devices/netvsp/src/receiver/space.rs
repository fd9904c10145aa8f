//! The space of the next frame: reserved sub-allocations, and their memory behind the RNDIS
//! headers.

use synthvm_net::Pieces;
use vm_memory::VolatileSlice;

use crate::config::ReceiveBuffer;
use crate::message::add_memory;
use crate::protocol::limits::{FRAME_OFFSET, VLAN_TAG};
use crate::protocol::sub_allocations::{Share, SubAllocation};

/// Offset of the space in each sub-allocation, in bytes. It is four bytes before the usual place of
/// a frame, so that one with a tag still fits: it begins there once its tag is removed.
pub(super) const OFFSET: u32 = FRAME_OFFSET - VLAN_TAG;

/// Space in a receive buffer. A frame takes the first sub-allocations of it.
pub(super) struct Space<'a> {
    buffer: &'a ReceiveBuffer,
    pieces: Pieces<'a>,
    /// Bytes of space in each sub-allocation.
    each: u32,
    /// Those before `taken` hold frames. They are removed together, when no other is left.
    reserved: Vec<Reserved>,
    taken: usize,
    /// The memory of the whole first sub-allocation, if that is one piece.
    first: Option<VolatileSlice<'a>>,
}

/// The memory of a [`Space`], kept from one to the next.
#[derive(Default)]
pub(super) struct SpaceMemory {
    pieces: Pieces<'static>,
    reserved: Vec<Reserved>,
}

/// A reserved sub-allocation.
#[derive(Clone, Copy)]
pub(super) struct Reserved {
    pub(super) sub_allocation: SubAllocation,
    /// Its offset in the buffer, in bytes.
    pub(super) offset: u32,
    /// Pieces of the space in it.
    pieces: usize,
}

impl<'a> Space<'a> {
    /// Returns an empty space of `buffer`.
    #[inline]
    pub(super) fn new(buffer: &'a ReceiveBuffer, memory: SpaceMemory) -> Self {
        let SpaceMemory { pieces, reserved } = memory;
        let each = buffer.geometry.usable() - OFFSET;
        Self { buffer, pieces: pieces.recycle(), each, reserved, taken: 0, first: None }
    }

    /// Reserves sub-allocations of `share` until there are `count`. Returns false if too few are
    /// free, or if they have too many pieces.
    #[inline]
    pub(super) fn fill(&mut self, share: &mut Share, count: usize) -> bool {
        while self.reserved.len() - self.taken < count {
            let Some(free) = share.reserve() else { return false };
            if !self.push(free) {
                // It was reserved here.
                let _ = share.cancel(free);
                return false;
            }
        }
        true
    }

    #[inline]
    fn push(&mut self, sub_allocation: SubAllocation) -> bool {
        let (buffer, before) = (self.buffer, self.pieces.iovecs().len());
        let (offset, usable) = (buffer.offset(sub_allocation), buffer.geometry.usable());
        let memory = buffer.view.piece(offset as usize, usable as usize);
        let added = match memory.and_then(|memory| memory.offset(OFFSET as usize).ok()) {
            Some(space) => self.pieces.push(space),
            None => {
                let (start, length) = ((offset + OFFSET) as usize, (usable - OFFSET) as usize);
                add_memory(&buffer.view, start, length, &mut self.pieces)
            }
        };
        if added.is_err() {
            return false;
        }
        if self.reserved.len() == self.taken {
            self.first = memory;
        }
        let pieces = self.pieces.iovecs().len() - before;
        self.reserved.push(Reserved { sub_allocation, offset, pieces });
        true
    }

    /// Returns the memory to which a frame is received.
    #[inline]
    pub(super) fn pieces(&self) -> &Pieces<'a> {
        &self.pieces
    }

    /// Returns the offset of the end of the space in each sub-allocation, in bytes.
    #[inline]
    pub(super) fn end(&self) -> u32 {
        OFFSET + self.each
    }

    /// Returns the number of sub-allocations that hold the first `length` bytes of the space.
    #[inline]
    pub(super) fn count(&self, length: u32) -> usize {
        if length <= self.each { 1 } else { length.div_ceil(self.each) as usize }
    }

    /// Returns the first `count` sub-allocations, or all if there are fewer.
    #[inline]
    pub(super) fn first(&self, count: usize) -> &[Reserved] {
        let left = &self.reserved[self.taken..];
        left.get(..count).unwrap_or(left)
    }

    /// Writes `header` to the start of sub-allocation `index` of the space. Returns false if the
    /// guest took the buffer's memory away.
    #[inline]
    pub(super) fn write_header(&self, index: usize, reserved: &Reserved, header: &[u8]) -> bool {
        match self.first {
            Some(memory) if index == 0 => {
                memory.copy_from(header);
                true
            }
            _ => self.buffer.view.write(reserved.offset as usize, header).is_ok(),
        }
    }

    /// Takes the first `count` sub-allocations away, which hold a frame.
    #[inline]
    pub(super) fn take(&mut self, count: usize) {
        if self.taken + count < self.reserved.len() {
            return self.take_some(count);
        }
        self.reserved.clear();
        self.taken = 0;
        self.pieces.clear();
    }

    #[inline(never)]
    fn take_some(&mut self, count: usize) {
        let pieces = self.first(count).iter().map(|one| one.pieces).sum();
        self.pieces.remove_first(pieces);
        self.taken += count;
        let usable = self.buffer.geometry.usable() as usize;
        let first = self.reserved.get(self.taken);
        self.first = first.and_then(|one| self.buffer.view.piece(one.offset as usize, usable));
    }

    /// Frees the sub-allocations, and returns the memory of the space.
    #[inline]
    pub(super) fn release(mut self, share: &mut Share) -> SpaceMemory {
        for unused in self.reserved.drain(self.taken..) {
            // They were reserved here.
            let _ = share.cancel(unused.sub_allocation);
        }
        self.reserved.clear();
        SpaceMemory { pieces: self.pieces.recycle(), reserved: self.reserved }
    }
}
