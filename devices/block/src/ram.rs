//! A disk in host memory, for tests and measurements.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{MmapRegion, VolatileMemory, VolatileSlice};

use super::immediate::ImmediateQueue;
use super::{Backend, Discard, Geometry, IoError, Operation, Queue, Request};
use crate::BlockSize;

const PAGE: usize = 4096;

/// Zeroes for clearing parts of a page.
static ZEROES: [u8; PAGE] = [0; PAGE];

/// A disk in anonymous memory. It reads as zero at first, and its contents are lost when it is
/// dropped.
#[derive(Debug)]
pub struct RamDisk {
    memory: Arc<Memory>,
    geometry: Geometry,
}

/// The memory of a disk: an address range up to the maximum capacity, accessible up to the current
/// one.
#[derive(Debug)]
struct Memory {
    region: MmapRegion,
    capacity: AtomicU64,
}

impl RamDisk {
    /// Returns a writable disk of `capacity` bytes.
    ///
    /// # Errors
    /// The memory cannot be had.
    pub fn new(capacity: u64) -> io::Result<Self> {
        let region = MmapRegion::new(size(capacity)?).map_err(io::Error::other)?;
        Ok(Self::over(region, capacity))
    }

    /// Returns a writable disk of `capacity` bytes that [`Backend::resize`] can grow to `limit`
    /// bytes. The system allocates memory at the first write to each page.
    ///
    /// # Errors
    /// The memory cannot be had.
    pub fn growable(capacity: u64, limit: u64) -> io::Result<Self> {
        let region = MmapRegionBuilder::new(size(capacity.max(limit))?)
            .with_mmap_prot(libc::PROT_NONE)
            .with_mmap_flags(libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_NORESERVE)
            .build()
            .map_err(io::Error::other)?;
        make_usable(&region, size(capacity)?)?;
        Ok(Self::over(region, capacity))
    }

    fn over(region: MmapRegion, capacity: u64) -> Self {
        let geometry = Geometry {
            capacity,
            block_size: BlockSize::B512,
            physical_block_size: 512,
            read_only: false,
            write_cache: false,
            rotational: false,
            discard: Some(Discard { granularity: 4096, zeroes: true }),
        };
        Self { memory: Arc::new(Memory { region, capacity: AtomicU64::new(capacity) }), geometry }
    }

    /// Changes the geometry, except for the capacity.
    #[must_use]
    pub fn with_geometry(mut self, change: impl FnOnce(&mut Geometry)) -> Self {
        let capacity = self.geometry.capacity;
        change(&mut self.geometry);
        self.geometry.capacity = capacity;
        self
    }

    /// Reads bytes directly, without a queue.
    ///
    /// # Errors
    /// The range is not on the disk.
    pub fn read(&self, offset: u64, to: &mut [u8]) -> Result<(), IoError> {
        piece(&self.memory, offset, to.len()).map(|slice| {
            slice.copy_to(to);
        })
    }

    /// Writes bytes directly, without a queue.
    ///
    /// # Errors
    /// The range is not on the disk.
    pub fn write(&self, offset: u64, from: &[u8]) -> Result<(), IoError> {
        piece(&self.memory, offset, from.len()).map(|slice| slice.copy_from(from))
    }
}

impl Backend for RamDisk {
    fn geometry(&self) -> Geometry {
        Geometry { capacity: self.memory.capacity.load(Ordering::Relaxed), ..self.geometry }
    }

    fn identity(&self) -> &[u8] {
        b"ram"
    }

    fn queue(&self) -> io::Result<Box<dyn Queue>> {
        let access =
            Access { memory: Arc::clone(&self.memory), read_only: self.geometry.read_only };
        Ok(Box::new(ImmediateQueue::new(move |request| {
            let result = access.execute(&request);
            request.complete(result, 0)
        })))
    }

    /// Grows the disk up to its limit. It cannot shrink.
    fn resize(&self, capacity: u64) -> Result<(), IoError> {
        let before = self.memory.capacity.load(Ordering::Relaxed);
        let limit = self.memory.region.len() as u64;
        if limit == before {
            return Err(IoError::Unsupported);
        }
        if capacity < before
            || !capacity.is_multiple_of(u64::from(self.geometry.block_size.bytes()))
        {
            return Err(IoError::Os(libc::EINVAL));
        }
        if capacity > limit {
            return Err(IoError::NoSpace);
        }
        make_usable(&self.memory.region, size(capacity)?)?;
        self.memory.capacity.store(capacity, Ordering::Release);
        Ok(())
    }
}

/// Converts bytes to the size of an address range.
fn size(bytes: u64) -> io::Result<usize> {
    usize::try_from(bytes).map_err(io::Error::other)
}

/// Makes the first `length` bytes of the reserved addresses accessible. New bytes read as zero;
/// already accessible ones are unchanged.
fn make_usable(region: &MmapRegion, length: usize) -> io::Result<()> {
    debug_assert!(length <= region.size(), "within the reservation");
    // SAFETY: the range is at the start of our own mapping, which is at least as long (rounded up
    // to pages, like the mapping). The call only adds access rights.
    let done = unsafe {
        libc::mprotect(region.as_ptr().cast(), length, libc::PROT_READ | libc::PROT_WRITE)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The part of a queue that requests use.
struct Access {
    memory: Arc<Memory>,
    read_only: bool,
}

impl Access {
    fn execute(&self, request: &Request) -> Result<(), IoError> {
        match request.operation {
            Operation::Read | Operation::Write { .. } => self.transfer(request),
            Operation::Flush => Ok(()),
            _ if self.read_only => Err(IoError::ReadOnly),
            Operation::Discard | Operation::WriteZeroes { .. } => {
                self.clear(request.offset, request.length)
            }
        }
    }

    /// Clears a range: returns whole pages to the system, after which they read as zero, and
    /// overwrites the rest.
    fn clear(&self, offset: u64, length: u64) -> Result<(), IoError> {
        let length = usize::try_from(length).map_err(|_| IoError::EndOfImage)?;
        let medium = piece(&self.memory, offset, length)?;
        let start = medium.ptr_guard_mut();
        let head = start.as_ptr().align_offset(PAGE).min(length);
        let pages = (length - head) / PAGE * PAGE;
        let tail = head + pages;
        if pages == 0 {
            // The range is within one page or two.
            let (first, second) = (head, length - head);
            piece(&self.memory, offset, first)?.copy_from(&ZEROES[..first]);
            piece(&self.memory, offset + first as u64, second)?.copy_from(&ZEROES[..second]);
            return Ok(());
        }
        // SAFETY: whole pages inside the region, which is private anonymous memory and stays mapped
        // while `self` lives.
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

    fn transfer(&self, request: &Request) -> Result<(), IoError> {
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

/// Returns a slice of the disk. Bytes beyond its capacity are not accessible.
fn piece(memory: &Memory, offset: u64, len: usize) -> Result<VolatileSlice<'_>, IoError> {
    let end = offset.checked_add(len as u64).ok_or(IoError::EndOfImage)?;
    // Pairs with the Release store in `resize`, which follows `make_usable`.
    if end > memory.capacity.load(Ordering::Acquire) {
        return Err(IoError::EndOfImage);
    }
    let offset = usize::try_from(offset).map_err(|_| IoError::EndOfImage)?;
    memory.region.get_slice(offset, len).map_err(|_| IoError::EndOfImage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{CAPACITY, check, one};

    #[test]
    fn test_growable_ram_disk_does_all_that_a_backend_must() {
        check(|| Arc::new(RamDisk::growable(CAPACITY, 4 * CAPACITY).unwrap()));
    }

    #[test]
    fn test_growable_ram_disk_grows_to_its_limit_and_no_further() {
        let disk = RamDisk::growable(1 << 20, 2 << 20).unwrap();
        let mut queue = disk.queue().unwrap();
        assert_eq!(disk.resize((2 << 20) + 512), Err(IoError::NoSpace));
        assert_eq!(disk.geometry().capacity, 1 << 20);
        disk.resize(2 << 20).unwrap();
        let write = Operation::Write { fua: false };
        assert_eq!(one(&mut *queue, write, (2 << 20) - 512, vec![7; 512]), Ok(vec![7; 512]));
        assert_eq!(
            one(&mut *queue, Operation::Read, (2 << 20) - 512, vec![0; 512]),
            Ok(vec![7; 512])
        );
        assert!(disk.resize(1 << 20).is_err(), "what is beyond would be lost");
    }

    #[test]
    fn test_ram_disk_of_one_size_cannot_be_resized() {
        assert_eq!(RamDisk::new(1 << 20).unwrap().resize(2 << 20), Err(IoError::Unsupported));
    }
}
