//! The memory of a request.

use std::fmt;

use vm_memory::VolatileSlice;
use vmbus_gpadl::{BufferError, GuestBuffer, GuestRam};

/// Guest memory (or, for tools and tests, host memory) and the part of it that one request moves, as iovecs.
///
/// Owned by whoever works on the request; used again for the next one without allocating.
pub struct IoBuffer {
    memory: Memory,
    iovecs: Vec<libc::iovec>,
    selected: usize,
}

enum Memory {
    Guest(GuestBuffer),
    Host(Vec<u8>),
}

// SAFETY: the iovecs point into `memory`, which moves along with them: guest RAM is kept mapped by the GuestBuffer (itself Send), host
// memory is owned. Neither belongs to a thread.
unsafe impl Send for IoBuffer {}

impl IoBuffer {
    /// Over guest memory; nothing is selected.
    pub fn new(ram: GuestRam) -> Self {
        Self { memory: Memory::Guest(GuestBuffer::new(ram)), iovecs: Vec::new(), selected: 0 }
    }

    /// Over host memory; all of it is selected.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        let selected = bytes.len();
        let mut buffer = Self { memory: Memory::Host(bytes), iovecs: Vec::new(), selected };
        buffer.select_host(0, selected);
        buffer
    }

    /// The guest buffer, to fill anew. Deselects. `None` for host memory.
    pub fn guest_mut(&mut self) -> Option<&mut GuestBuffer> {
        self.deselect();
        match &mut self.memory {
            Memory::Guest(guest) => Some(guest),
            Memory::Host(_) => None,
        }
    }

    /// The guest buffer. `None` for host memory.
    pub fn guest(&self) -> Option<&GuestBuffer> {
        match &self.memory {
            Memory::Guest(guest) => Some(guest),
            Memory::Host(_) => None,
        }
    }

    /// The host memory. Deselects, as the pieces would alias it. `None` for guest memory.
    pub fn host_bytes(&mut self) -> Option<&mut Vec<u8>> {
        self.deselect();
        match &mut self.memory {
            Memory::Guest(_) => None,
            Memory::Host(bytes) => Some(bytes),
        }
    }

    /// Selects nothing.
    pub fn deselect(&mut self) {
        self.iovecs.clear();
        self.selected = 0;
    }

    /// Selects `len` bytes from `offset` as what the request moves.
    ///
    /// # Errors
    /// They are not all there; nothing is selected then.
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
        }
        self.selected = len;
        Ok(())
    }

    /// Bytes selected.
    pub fn len(&self) -> usize {
        self.selected
    }

    /// Nothing is selected.
    pub fn is_empty(&self) -> bool {
        self.selected == 0
    }

    /// The selected pieces. Valid while the buffer lives and is not changed; the guest may change the bytes at any moment.
    pub fn iovecs(&self) -> &[libc::iovec] {
        &self.iovecs
    }

    /// The selected pieces, to be shortened from the front as bytes move. They may only shrink.
    pub(super) fn iovecs_mut(&mut self) -> &mut [libc::iovec] {
        &mut self.iovecs
    }

    /// The selected pieces, for copying.
    pub fn slices(&self) -> impl Iterator<Item = VolatileSlice<'_>> {
        // SAFETY: each iovec names bytes inside `memory` that stay mapped while `self` is borrowed; volatile access tolerates the guest.
        self.iovecs.iter().map(|piece| unsafe { VolatileSlice::new(piece.iov_base.cast(), piece.iov_len) })
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
