//! Ring memory without a guest, for tests, benches and the in-process VM.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::FromRawFd;
use std::sync::Arc;

use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};
use vmbus_gpadl::{GuestBuffer, GuestRam, RangeAssembler};
use vmbus_protocol::limits::PAGE_SIZE;
use vmbus_protocol::num::u64_of;

use super::{Mode, RingMemory};
use crate::error::MapError;

/// File-backed guest RAM at guest address 0, in which rings are placed by page number. Clones share
/// the memory.
#[derive(Clone, Debug)]
pub struct PlainMemory {
    ram: GuestRam,
}

/// A buffer that each of its rings keeps alive, like a `GpadlView`.
struct Shared(Arc<GuestBuffer>);

impl Deref for Shared {
    type Target = GuestBuffer;

    fn deref(&self) -> &GuestBuffer {
        &self.0
    }
}

impl PlainMemory {
    /// Returns `pages` pages of fresh zeroed memory, backed by a memfd.
    ///
    /// # Errors
    /// [`MapError::Memory`] when the host refuses.
    pub fn new(pages: usize) -> Result<Self, MapError> {
        let bytes = pages.checked_mul(PAGE_SIZE).ok_or(MapError::Size { pages })?;
        let file = memfd(bytes).map_err(MapError::Memory)?;
        let regions = [(GuestAddress(0), bytes, Some(FileOffset::new(file, 0)))];
        let memory = GuestMemoryMmap::from_ranges_with_files(regions)
            .map_err(|e| MapError::Memory(io::Error::other(e)))?;
        let ram = GuestRam::new(memory).map_err(|e| MapError::Memory(io::Error::other(e)))?;
        Ok(Self { ram })
    }

    /// Returns the memory as a guest's RAM.
    #[must_use]
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// Returns the ring with its control page and data pages in `pages`, in this order.
    ///
    /// # Errors
    /// [`MapError`]: too few or too many pages, or one that does not exist.
    pub fn ring(&self, pages: &[u64], prefer: Mode) -> Result<RingMemory, MapError> {
        let count = pages.len().checked_mul(PAGE_SIZE).and_then(|bytes| u32::try_from(bytes).ok());
        let count = count.ok_or(MapError::Size { pages: pages.len() })?;
        let mut words = u64::from(count).to_le_bytes().to_vec();
        words.extend(pages.iter().flat_map(|page| page.to_le_bytes()));
        let buffer = RangeAssembler::assemble(GuestBuffer::new(self.ram.clone()), 1, &words)
            .map_err(|_| MapError::Size { pages: pages.len() })?;
        RingMemory::build(Shared(Arc::new(buffer)), 0, pages.len(), prefer)
    }

    /// Returns the ring in pages `first..first + pages`, in order.
    ///
    /// # Errors
    /// The errors of [`PlainMemory::ring`].
    pub fn ring_at(
        &self,
        first: usize,
        pages: usize,
        prefer: Mode,
    ) -> Result<RingMemory, MapError> {
        let pages: Vec<u64> =
            (0..u64_of(pages)).map(|page| u64_of(first).wrapping_add(page)).collect();
        self.ring(&pages, prefer)
    }
}

fn memfd(bytes: usize) -> io::Result<File> {
    // SAFETY: the name is a C string; the call accesses no other memory.
    let fd = unsafe { libc::memfd_create(c"vmbus-ring".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor without another owner.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(u64_of(bytes))?;
    Ok(file)
}
