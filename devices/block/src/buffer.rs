//! The buffer of a request.

use std::fmt;
use std::sync::Arc;

use vm_memory::VolatileSlice;
use vmbus_gpadl::{BufferError, GuestBuffer, GuestRam};

/// A buffer in guest memory (or, for tools and tests, in host memory), with the selection that one
/// request moves, as iovecs.
///
/// It travels with its request. The next request reuses it without an allocation.
pub struct IoBuffer {
    memory: Memory,
    iovecs: Vec<libc::iovec>,
    selected: usize,
}

enum Memory {
    Guest(GuestBuffer),
    Host(Vec<u8>),
    /// Part of a shared buffer, which it keeps alive.
    Part(Arc<IoBuffer>),
}

// SAFETY: the iovecs point into `memory`, which moves with them: the GuestBuffer (itself Send)
// keeps guest RAM mapped, and host memory is owned. Neither is bound to a thread.
unsafe impl Send for IoBuffer {}

// SAFETY: `&self` only reads the list of iovecs. Their bytes are accessed only volatilely and by
// system calls, which tolerate concurrent changes by the guest, and so by each other.
unsafe impl Sync for IoBuffer {}

impl IoBuffer {
    /// Returns a buffer for guest memory, with nothing selected.
    pub fn new(ram: GuestRam) -> Self {
        Self { memory: Memory::Guest(GuestBuffer::new(ram)), iovecs: Vec::new(), selected: 0 }
    }

    /// Returns a buffer over host memory, with all of it selected.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        let selected = bytes.len();
        let mut buffer = Self { memory: Memory::Host(bytes), iovecs: Vec::new(), selected };
        buffer.select_host(0, selected);
        buffer
    }

    /// Returns a buffer without memory.
    pub const fn empty() -> Self {
        Self { memory: Memory::Host(Vec::new()), iovecs: Vec::new(), selected: 0 }
    }

    /// Splits a request without a copy: returns the `len` bytes at `offset` of the selection in
    /// `whole` as a buffer of its own, entirely selected. `whole` lives as long as its parts;
    /// `Arc::into_inner` returns it after the last one.
    ///
    /// # Errors
    /// The range is not within the selection.
    pub fn part(whole: &Arc<Self>, offset: usize, len: usize) -> Result<Self, BufferError> {
        if offset.checked_add(len).is_none_or(|end| end > whole.selected) {
            return Err(BufferError::OutOfBounds { offset, len, size: whole.selected });
        }
        let (mut skip, mut left) = (offset, len);
        let mut iovecs = Vec::new();
        for piece in &whole.iovecs {
            let begin = skip.min(piece.iov_len);
            let take = left.min(piece.iov_len - begin);
            skip -= begin;
            left -= take;
            if take != 0 {
                iovecs.push(libc::iovec {
                    iov_base: piece.iov_base.wrapping_byte_add(begin),
                    iov_len: take,
                });
            }
            if left == 0 {
                break;
            }
        }
        Ok(Self { memory: Memory::Part(Arc::clone(whole)), iovecs, selected: len })
    }

    /// Returns the guest buffer for filling, and clears the selection. `None` for host memory and
    /// parts.
    pub fn guest_mut(&mut self) -> Option<&mut GuestBuffer> {
        self.deselect();
        match &mut self.memory {
            Memory::Guest(guest) => Some(guest),
            Memory::Host(_) | Memory::Part(_) => None,
        }
    }

    /// Returns the guest buffer. `None` for host memory and parts.
    pub fn guest(&self) -> Option<&GuestBuffer> {
        match &self.memory {
            Memory::Guest(guest) => Some(guest),
            Memory::Host(_) | Memory::Part(_) => None,
        }
    }

    /// Returns the host memory. Clears the selection, as its iovecs would alias the memory. `None`
    /// for guest memory and parts.
    pub fn host_bytes(&mut self) -> Option<&mut Vec<u8>> {
        self.deselect();
        match &mut self.memory {
            Memory::Guest(_) | Memory::Part(_) => None,
            Memory::Host(bytes) => Some(bytes),
        }
    }

    /// Clears the selection.
    pub fn deselect(&mut self) {
        self.iovecs.clear();
        self.selected = 0;
    }

    /// Selects the `len` bytes at `offset` for the request to move.
    ///
    /// # Errors
    /// The range is not within the buffer. The selection is empty then.
    pub fn select(&mut self, offset: usize, len: usize) -> Result<(), BufferError> {
        self.deselect();
        match &mut self.memory {
            Memory::Guest(guest) => guest.iovecs(offset, len, &mut self.iovecs)?,
            Memory::Host(bytes) => {
                if offset.checked_add(len).is_none_or(|end| end > bytes.len()) {
                    return Err(BufferError::OutOfBounds { offset, len, size: bytes.len() });
                }
                self.select_host(offset, len);
            }
            Memory::Part(whole) => {
                let part = Self::part(whole, offset, len)?;
                self.iovecs = part.iovecs;
            }
        }
        self.selected = len;
        Ok(())
    }

    /// Returns the number of selected bytes.
    pub fn len(&self) -> usize {
        self.selected
    }

    /// Returns true if nothing is selected.
    pub fn is_empty(&self) -> bool {
        self.selected == 0
    }

    /// Returns the selection. The iovecs are valid until the buffer is changed or dropped. The
    /// guest may change the bytes at any time.
    pub fn iovecs(&self) -> &[libc::iovec] {
        &self.iovecs
    }

    /// Returns the selection for a partial transfer, which shortens it from the front. The iovecs
    /// may only shrink.
    pub(super) fn iovecs_mut(&mut self) -> &mut [libc::iovec] {
        &mut self.iovecs
    }

    /// Returns the selection as slices, for copying.
    pub fn slices(&self) -> impl Iterator<Item = VolatileSlice<'_>> {
        // SAFETY: each iovec covers bytes of `memory` that stay mapped while `self` is borrowed;
        // volatile access tolerates the guest.
        self.iovecs
            .iter()
            .map(|piece| unsafe { VolatileSlice::new(piece.iov_base.cast(), piece.iov_len) })
    }

    fn select_host(&mut self, offset: usize, len: usize) {
        if let Memory::Host(bytes) = &mut self.memory
            && len != 0
        {
            let base = bytes[offset..offset + len].as_mut_ptr();
            self.iovecs.push(libc::iovec { iov_base: base.cast(), iov_len: len });
        }
    }
}

impl fmt::Debug for IoBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IoBuffer({} bytes in {} pieces)", self.selected, self.iovecs.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(buffer: &IoBuffer) -> Vec<u8> {
        let mut all = Vec::new();
        for slice in buffer.slices() {
            let mut piece = vec![0; slice.len()];
            slice.copy_to(&mut piece);
            all.extend(piece);
        }
        all
    }

    #[test]
    fn test_parts_are_the_bytes_of_the_whole_and_give_it_back() {
        let ram = crate::conformance::guest_ram(1 << 20);
        let mut guest = crate::conformance::guest_buffer(&ram, 100, 3 * 4096, &[9, 3, 7, 20]);
        let expected: Vec<u8> = (0..3 * 4096_u32).map(|at| (at / 3) as u8).collect();
        guest.guest_mut().unwrap().write(0, &expected).unwrap();
        guest.select(50, 3 * 4096 - 50).unwrap();
        let whole = Arc::new(guest);
        for (offset, len) in
            [(0, 12238), (0, 1), (12237, 1), (3946, 2), (3945, 5000), (100, 0), (12238, 0)]
        {
            let part = IoBuffer::part(&whole, offset, len).unwrap();
            assert_eq!(part.len(), len);
            assert_eq!(bytes(&part), expected[50 + offset..50 + offset + len]);
            let nested = IoBuffer::part(&Arc::new(part), len / 3, len / 2).unwrap();
            assert_eq!(bytes(&nested), expected[50 + offset + len / 3..][..len / 2]);
        }
        assert!(Arc::into_inner(whole).is_some());
    }

    #[test]
    fn test_part_beyond_the_selection_is_refused() {
        let mut buffer = IoBuffer::from_vec(vec![1; 100]);
        buffer.select(10, 50).unwrap();
        let whole = Arc::new(buffer);
        for (offset, len) in [(0, 51), (50, 1), (51, 0), (usize::MAX, 2)] {
            assert!(IoBuffer::part(&whole, offset, len).is_err(), "{offset} + {len}");
        }
    }
}
