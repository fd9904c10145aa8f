//! What one request comes to.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{PoisonError, RwLockReadGuard, RwLockWriteGuard};

use imago::file::File as Storage;
use imago::io_buffers::{IoVector, IoVectorMut};
use imago::{FormatAccess, Mapping};
use synthvm_storage::backend::{IoError, IoRequest, Operation};
use vm_memory::VolatileSlice;

use super::Image;

/// Most pieces of one preadv or pwritev (Linux's IOV_MAX); imago hands on what it gets.
const MAX_PIECES: usize = libc::UIO_MAXIOV as usize;

impl Image {
    pub(super) fn read(&self) -> RwLockReadGuard<'_, FormatAccess<Storage>> {
        self.access.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, FormatAccess<Storage>> {
        self.access.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does it. The result, and how many bytes were copied.
    pub(super) fn execute(&self, request: &IoRequest) -> (Result<(), IoError>, u64) {
        let mut copied = 0;
        let result = self.contain(|| self.attempt(request, &mut copied));
        (result, copied)
    }

    /// Does `what` with the library, which takes offence at some broken images: then that fails, and as nobody knows what became of metadata
    /// in memory, no flush succeeds any more.
    pub(super) fn contain<T>(&self, what: impl FnOnce() -> Result<T, IoError>) -> Result<T, IoError> {
        catch_unwind(AssertUnwindSafe(what)).unwrap_or_else(|_| {
            self.flush_lost.store(true, Ordering::Release);
            Err(IoError::Os(libc::EIO))
        })
    }

    fn attempt(&self, request: &IoRequest, copied: &mut u64) -> Result<(), IoError> {
        let (offset, length) = (request.offset, request.length);
        let capacity = self.capacity.load(Ordering::Acquire);
        if offset.checked_add(length).is_none_or(|end| end > capacity) {
            return Err(IoError::EndOfImage);
        }
        if self.read_only && !matches!(request.operation, Operation::Read | Operation::Flush) {
            return Err(IoError::ReadOnly);
        }
        match request.operation {
            Operation::Read => {
                let access = self.read();
                *copied = compressed(&access, offset, length)?;
                transfer(request, |pieces, at| {
                    let (vector, _guard) = IoVectorMut::from_volatile_slice(pieces);
                    access.readv(vector, at)
                })
            }
            Operation::Write { fua } => {
                let access = self.read();
                transfer(request, |pieces, at| {
                    let (vector, _guard) = IoVector::from_volatile_slice(pieces);
                    access.writev(vector, at)
                })?;
                if fua { self.flush(&access) } else { Ok(()) }
            }
            Operation::Flush if self.read_only => Ok(()),
            Operation::Flush => self.flush(&self.read()),
            Operation::WriteZeroes { unmap: false } => Ok(self.read().write_zeroes(offset, length)?),
            // Takes mappings away, so nobody may be using any.
            Operation::Discard | Operation::WriteZeroes { unmap: true } => {
                Ok(self.write().discard_to_zero(offset, length)?)
            }
        }
    }

    fn flush(&self, access: &FormatAccess<Storage>) -> Result<(), IoError> {
        if self.flush_lost.load(Ordering::Acquire) {
            return Err(IoError::FlushLost);
        }
        access.flush().and_then(|()| access.sync()).map_err(|error| {
            self.flush_lost.store(true, Ordering::Release);
            error.into()
        })
    }
}

fn transfer(
    request: &IoRequest,
    mut step: impl FnMut(&[VolatileSlice<'_>], u64) -> std::io::Result<()>,
) -> Result<(), IoError> {
    let pieces: Vec<VolatileSlice<'_>> = request.buffer.slices().collect();
    let mut at = request.offset;
    for pieces in pieces.chunks(MAX_PIECES) {
        step(pieces, at)?;
        at += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
    }
    Ok(())
}

/// Bytes of the range that are unpacked on their way.
fn compressed(access: &FormatAccess<Storage>, offset: u64, length: u64) -> Result<u64, IoError> {
    let (mut at, end, mut sum) = (offset, offset + length, 0);
    while at < end {
        let (mapping, length) = access.get_mapping(at, end - at)?;
        let length = length.clamp(1, end - at);
        if matches!(mapping, Mapping::Special { .. }) {
            sum += length;
        }
        at += length;
    }
    Ok(sum)
}
