//! A disk in memory, for tests and measurements: it has no medium to wait for.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use vm_memory::{MmapRegion, VolatileMemory};

use super::{Backend, Discard, Geometry, IoDone, IoError, IoRequest, Operation, Queue};
use crate::scsi::BlockSize;

const PAGE: usize = 4096;

/// What a page has that is not given back as a whole.
static ZEROES: [u8; PAGE] = [0; PAGE];

/// A disk in anonymous memory: zero at first, gone when dropped.
#[derive(Debug)]
pub struct RamDisk {
    memory: Arc<MmapRegion>,
    geometry: Geometry,
}

impl RamDisk {
    /// A writable disk of `capacity` bytes.
    ///
    /// # Errors
    /// The memory cannot be had.
    pub fn new(capacity: u64) -> io::Result<Self> {
        let size = usize::try_from(capacity).map_err(io::Error::other)?;
        let memory = MmapRegion::new(size).map_err(io::Error::other)?;
        let geometry = Geometry {
            capacity,
            block_size: BlockSize::B512,
            physical_block_size: 512,
            read_only: false,
            write_cache: false,
            rotational: false,
            discard: Some(Discard { granularity: 4096, zeroes: true }),
        };
        Ok(Self { memory: Arc::new(memory), geometry })
    }

    /// The same disk with another geometry but the same capacity.
    #[must_use]
    pub fn with_geometry(mut self, change: impl FnOnce(&mut Geometry)) -> Self {
        let capacity = self.geometry.capacity;
        change(&mut self.geometry);
        self.geometry.capacity = capacity;
        self
    }

    /// Copies bytes out, past any queue.
    ///
    /// # Errors
    /// The range is not on the disk.
    pub fn read(&self, offset: u64, to: &mut [u8]) -> Result<(), IoError> {
        piece(&self.memory, offset, to.len()).map(|slice| {
            slice.copy_to(to);
        })
    }

    /// Copies bytes in, past any queue.
    ///
    /// # Errors
    /// The range is not on the disk.
    pub fn write(&self, offset: u64, from: &[u8]) -> Result<(), IoError> {
        piece(&self.memory, offset, from.len()).map(|slice| slice.copy_from(from))
    }
}

impl Backend for RamDisk {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn identity(&self) -> &[u8] {
        b"ram"
    }

    fn queue(&self) -> io::Result<Box<dyn Queue>> {
        let memory = Arc::clone(&self.memory);
        Ok(Box::new(RamQueue { memory, read_only: self.geometry.read_only, done: Vec::new() }))
    }
}

struct RamQueue {
    memory: Arc<MmapRegion>,
    read_only: bool,
    done: Vec<IoDone>,
}

impl RamQueue {
    fn execute(&self, request: &IoRequest) -> Result<(), IoError> {
        match request.operation {
            Operation::Read | Operation::Write { .. } => self.transfer(request),
            Operation::Flush => Ok(()),
            _ if self.read_only => Err(IoError::ReadOnly),
            Operation::Discard | Operation::WriteZeroes { .. } => self.clear(request.offset, request.length),
        }
    }

    /// Whole pages are given back to the system, which reads them as zero; the rest is written.
    fn clear(&self, offset: u64, length: u64) -> Result<(), IoError> {
        let length = usize::try_from(length).map_err(|_| IoError::EndOfImage)?;
        let medium = piece(&self.memory, offset, length)?;
        let start = medium.ptr_guard_mut();
        let head = start.as_ptr().align_offset(PAGE).min(length);
        let pages = (length - head) / PAGE * PAGE;
        let tail = head + pages;
        if pages == 0 {
            // One or two pieces of pages.
            let (first, second) = (head, length - head);
            piece(&self.memory, offset, first)?.copy_from(&ZEROES[..first]);
            piece(&self.memory, offset + first as u64, second)?.copy_from(&ZEROES[..second]);
            return Ok(());
        }
        // SAFETY: whole pages inside the region, which is private anonymous memory and stays mapped while `self` lives.
        let given_back =
            unsafe { libc::madvise(start.as_ptr().add(head).cast(), pages, libc::MADV_DONTNEED) };
        if given_back != 0 {
            return Err(io::Error::last_os_error().into());
        }
        for (at, len) in [(0, head), (tail, length - tail)] {
            piece(&self.memory, offset + at as u64, len)?.copy_from(&ZEROES[..len]);
        }
        Ok(())
    }

    fn transfer(&self, request: &IoRequest) -> Result<(), IoError> {
        let mut offset = request.offset;
        for guest in request.buffer.slices() {
            let medium = piece(&self.memory, offset, guest.len())?;
            match request.operation {
                Operation::Read => medium.copy_to_volatile_slice(guest),
                _ if self.read_only => return Err(IoError::ReadOnly),
                _ => guest.copy_to_volatile_slice(medium),
            }
            offset += guest.len() as u64;
        }
        Ok(())
    }
}

impl Queue for RamQueue {
    fn submit(&mut self, requests: &mut Vec<IoRequest>) {
        for request in requests.drain(..) {
            let result = self.execute(&request);
            self.done.push(IoDone { id: request.id, result, copied: 0, buffer: request.buffer });
        }
    }

    fn poll(&mut self, done: &mut Vec<IoDone>) {
        if done.is_empty() {
            std::mem::swap(done, &mut self.done);
        } else {
            done.append(&mut self.done);
        }
    }

    fn event(&self) -> Option<RawFd> {
        None
    }
}

fn piece(memory: &MmapRegion, offset: u64, len: usize) -> Result<vm_memory::VolatileSlice<'_>, IoError> {
    let offset = usize::try_from(offset).map_err(|_| IoError::EndOfImage)?;
    memory.get_slice(offset, len).map_err(|_| IoError::EndOfImage)
}
