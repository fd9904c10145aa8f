//! A disk that does nothing, for measuring what everything else costs.

use std::io;
use std::os::fd::RawFd;

use super::{Backend, Discard, Extent, Geometry, IoDone, IoError, IoRequest, Operation, Queue};
use crate::scsi::BlockSize;

/// A disk that takes every write and forgets it. A read leaves the guest's memory as it is, so that not even memory is measured: guests
/// see whatever was there before (their own bytes; nothing of anybody else's).
#[derive(Debug)]
pub struct NullDisk {
    capacity: u64,
}

impl NullDisk {
    /// Of `capacity` bytes: whole blocks of 512.
    pub fn new(capacity: u64) -> Self {
        Self { capacity }
    }
}

impl Backend for NullDisk {
    fn geometry(&self) -> Geometry {
        Geometry {
            capacity: self.capacity,
            block_size: BlockSize::B512,
            physical_block_size: 4096,
            read_only: false,
            write_cache: false,
            rotational: false,
            discard: Some(Discard { granularity: 4096, zeroes: false }),
        }
    }

    fn identity(&self) -> &[u8] {
        b"null"
    }

    fn queue(&self) -> io::Result<Box<dyn Queue>> {
        Ok(Box::new(NullQueue { capacity: self.capacity, done: Vec::new() }))
    }

    fn extent(&self, offset: u64) -> Result<Extent, IoError> {
        Ok(Extent { length: self.capacity.saturating_sub(offset), mapped: false })
    }
}

struct NullQueue {
    capacity: u64,
    done: Vec<IoDone>,
}

impl Queue for NullQueue {
    fn submit(&mut self, requests: &mut Vec<IoRequest>) {
        for IoRequest { id, operation, offset, length, buffer } in requests.drain(..) {
            let inside = offset.checked_add(length).is_some_and(|end| end <= self.capacity);
            let result =
                if inside || operation == Operation::Flush { Ok(()) } else { Err(IoError::EndOfImage) };
            self.done.push(IoDone { id, result, copied: 0, buffer });
        }
    }

    fn poll(&mut self, done: &mut Vec<IoDone>) {
        done.append(&mut self.done);
    }

    fn event(&self) -> Option<RawFd> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::conformance::{one, over};

    #[test]
    fn test_null_disk_takes_all_keeps_none_and_ends_where_it_ends() {
        let disk = NullDisk::new(1 << 20);
        let mut queue = disk.queue().unwrap();
        let write = Operation::Write { fua: true };
        assert_eq!(one(&mut *queue, write, (1 << 20) - 512, vec![1; 512]), Ok(vec![1; 512]));
        assert_eq!(one(&mut *queue, Operation::Read, (1 << 20) - 512, vec![2; 512]), Ok(vec![2; 512]));
        assert_eq!(one(&mut *queue, Operation::Flush, 0, vec![]), Ok(vec![]));
        assert_eq!(over(&mut *queue, Operation::Discard, 0, 1 << 20), Ok(()));
        assert_eq!(one(&mut *queue, write, 1 << 20, vec![1; 512]), Err(IoError::EndOfImage));
    }
}
