//! A disk in memory, for tests and measurements: it has no medium to wait for.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use vm_memory::{MmapRegion, VolatileMemory};

use super::{Backend, Geometry, IoDone, IoError, IoRequest, Operation, Queue};
use crate::scsi::BlockSize;

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
        let mut offset = request.offset;
        for guest in request.buffer.slices() {
            let medium = piece(&self.memory, offset, guest.len())?;
            match request.operation {
                Operation::Read => medium.copy_to_volatile_slice(guest),
                Operation::Write { .. } if self.read_only => return Err(IoError::ReadOnly),
                Operation::Write { .. } => guest.copy_to_volatile_slice(medium),
                Operation::Flush => {}
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
            self.done.push(IoDone { id: request.id, result, buffer: request.buffer });
        }
    }

    fn poll(&mut self, done: &mut Vec<IoDone>) {
        done.append(&mut self.done);
    }

    fn event(&self) -> Option<RawFd> {
        None
    }
}

fn piece(memory: &MmapRegion, offset: u64, len: usize) -> Result<vm_memory::VolatileSlice<'_>, IoError> {
    let offset = usize::try_from(offset).map_err(|_| IoError::EndOfImage)?;
    memory.get_slice(offset, len).map_err(|_| IoError::EndOfImage)
}
