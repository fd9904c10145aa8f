//! A disk without storage, for measuring the cost of everything else.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vm_memory::VolatileSlice;

use super::immediate::ImmediateQueue;
use super::{Backend, Discard, Extent, Geometry, IoError, Operation, Queue, Request};
use crate::BlockSize;

/// A disk that discards every write. A read leaves the guest's memory unchanged, so that not even
/// memory access is measured. For other uses there is [`NullDisk::reading_zeroes`].
#[derive(Debug)]
pub struct NullDisk {
    /// Capacity in bytes, shared with the queues.
    capacity: Arc<AtomicU64>,
    read_only: bool,
    zeroes: bool,
}

impl NullDisk {
    /// Returns a writable disk of `capacity` bytes, a multiple of 512.
    pub fn new(capacity: u64) -> Self {
        Self { capacity: Arc::new(AtomicU64::new(capacity)), read_only: false, zeroes: false }
    }

    /// Makes every read fill the guest's memory with zeroes, so that a guest that looks for
    /// partitions finds an empty disk.
    #[must_use]
    pub fn reading_zeroes(mut self) -> Self {
        self.zeroes = true;
        self
    }

    /// Makes the disk refuse writes.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::Relaxed)
    }
}

impl Backend for NullDisk {
    fn geometry(&self) -> Geometry {
        Geometry {
            capacity: self.capacity(),
            block_size: BlockSize::B512,
            physical_block_size: 4096,
            read_only: self.read_only,
            write_cache: false,
            rotational: false,
            discard: Some(Discard { granularity: 4096, zeroes: self.zeroes }),
        }
    }

    fn identity(&self) -> &[u8] {
        b"null"
    }

    fn queue(&self) -> io::Result<Box<dyn Queue>> {
        let (capacity, read_only, zeroes) =
            (Arc::clone(&self.capacity), self.read_only, self.zeroes);
        let access = Access { capacity, read_only, zeroes };
        Ok(Box::new(ImmediateQueue::new(move |request| {
            let result = access.execute(&request);
            request.complete(result, 0)
        })))
    }

    fn extent(&self, offset: u64) -> Result<Extent, IoError> {
        Ok(Extent { length: self.capacity().saturating_sub(offset), mapped: false })
    }

    /// Accepts any size of whole blocks up to [`MAX_CAPACITY`].
    fn resize(&self, capacity: u64) -> Result<(), IoError> {
        let whole = capacity.is_multiple_of(u64::from(BlockSize::B512.bytes()));
        if capacity == 0 || capacity > MAX_CAPACITY || !whole {
            return Err(IoError::Os(libc::EINVAL));
        }
        self.capacity.store(capacity, Ordering::Relaxed);
        Ok(())
    }
}

/// Maximum capacity in bytes: the largest file offset in whole blocks, as for images.
pub const MAX_CAPACITY: u64 = i64::MAX as u64 / 512 * 512;

/// The part of a queue that requests use.
struct Access {
    capacity: Arc<AtomicU64>,
    read_only: bool,
    zeroes: bool,
}

impl Access {
    fn execute(&self, request: &Request) -> Result<(), IoError> {
        let Request { operation, offset, length, .. } = request;
        let capacity = self.capacity.load(Ordering::Relaxed);
        match operation {
            Operation::Flush => return Ok(()),
            Operation::Read => {}
            _ if self.read_only => return Err(IoError::ReadOnly),
            Operation::Write { .. } | Operation::Discard | Operation::WriteZeroes { .. } => {}
        }
        if offset.checked_add(*length).is_none_or(|end| end > capacity) {
            return Err(IoError::EndOfImage);
        }
        if self.zeroes && *operation == Operation::Read {
            request.buffer.slices().for_each(|slice| clear(&slice));
        }
        Ok(())
    }
}

/// Fills memory with zeroes, a piece at a time.
fn clear(memory: &VolatileSlice<'_>) {
    static ZEROES: [u8; 16 << 10] = [0; 16 << 10];
    let mut rest = *memory;
    while !rest.is_empty() {
        let length = rest.len().min(ZEROES.len());
        rest.copy_from(&ZEROES[..length]);
        let Ok(next) = rest.offset(length) else { return };
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{one, over};

    #[test]
    fn test_null_disk_takes_all_keeps_none_and_ends_where_it_ends() {
        let disk = NullDisk::new(1 << 20);
        let mut queue = disk.queue().unwrap();
        let write = Operation::Write { fua: true };
        assert_eq!(one(&mut *queue, write, (1 << 20) - 512, vec![1; 512]), Ok(vec![1; 512]));
        assert_eq!(
            one(&mut *queue, Operation::Read, (1 << 20) - 512, vec![2; 512]),
            Ok(vec![2; 512])
        );
        assert_eq!(one(&mut *queue, Operation::Flush, 0, vec![]), Ok(vec![]));
        assert_eq!(over(&mut *queue, Operation::Discard, 0, 1 << 20), Ok(()));
        assert_eq!(one(&mut *queue, write, 1 << 20, vec![1; 512]), Err(IoError::EndOfImage));
    }

    #[test]
    fn test_null_disk_that_reads_zeroes_fills_the_guests_memory() {
        let disk = NullDisk::new(1 << 20).reading_zeroes();
        let mut queue = disk.queue().unwrap();
        let write = Operation::Write { fua: false };
        assert_eq!(one(&mut *queue, write, 0, vec![1; 512]), Ok(vec![1; 512]));
        let length = (16 << 10) + 512;
        assert_eq!(one(&mut *queue, Operation::Read, 0, vec![2; length]), Ok(vec![0; length]));
        assert_eq!(disk.geometry().discard.map(|discard| discard.zeroes), Some(true));
    }

    #[test]
    fn test_null_disk_that_is_read_only_refuses_changes() {
        let disk = NullDisk::new(1 << 20).read_only();
        let mut queue = disk.queue().unwrap();
        let write = Operation::Write { fua: false };
        assert!(disk.geometry().read_only);
        assert_eq!(one(&mut *queue, write, 0, vec![1; 512]), Err(IoError::ReadOnly));
        assert_eq!(over(&mut *queue, Operation::Discard, 0, 512), Err(IoError::ReadOnly));
        assert_eq!(one(&mut *queue, Operation::Read, 0, vec![2; 512]), Ok(vec![2; 512]));
    }

    #[test]
    fn test_null_disk_grows_also_for_queues_that_were_there() {
        let disk = NullDisk::new(1 << 20);
        let mut queue = disk.queue().unwrap();
        assert_eq!(
            one(&mut *queue, Operation::Read, 1 << 20, vec![2; 512]),
            Err(IoError::EndOfImage)
        );
        disk.resize(2 << 20).unwrap();
        assert_eq!(one(&mut *queue, Operation::Read, 1 << 20, vec![2; 512]), Ok(vec![2; 512]));
        for wrong in [0, 513, MAX_CAPACITY + 512] {
            assert!(disk.resize(wrong).is_err(), "{wrong}");
        }
        assert_eq!(disk.geometry().capacity, 2 << 20);
    }
}
