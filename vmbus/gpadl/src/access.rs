//! Reads and writes of a guest buffer: pieces, iovecs, bytes and typed values.

use std::ptr;

use thiserror::Error;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::buffer::GuestBuffer;
use crate::slices::Slices;

/// The reasons to refuse a part of a buffer.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum BufferError {
    /// `offset + len` passes the end of the buffer.
    #[error("bytes {offset}..{offset}+{len} lie outside a guest buffer of {size} bytes")]
    OutOfBounds {
        /// Offset of the first byte in the request.
        offset: usize,
        /// Bytes in the request.
        len: usize,
        /// Bytes in the buffer.
        size: usize,
    },
}

impl GuestBuffer {
    /// Returns the pieces of host memory that hold `len` bytes from `offset`, in order.
    ///
    /// # Errors
    /// [`BufferError::OutOfBounds`].
    #[inline]
    pub fn slices(&self, offset: usize, len: usize) -> Result<Slices<'_>, BufferError> {
        if offset.checked_add(len).is_none_or(|end| end > self.len()) {
            return Err(BufferError::OutOfBounds { offset, len, size: self.len() });
        }
        Ok(Slices::new(self, offset, len))
    }

    /// Adds to `out` the iovecs of `len` bytes from `offset`. Adjacent iovecs are merged. They are
    /// valid while `self` lives.
    ///
    /// # Errors
    /// [`BufferError::OutOfBounds`]; `out` is then unchanged.
    #[inline]
    pub fn iovecs(
        &self,
        offset: usize,
        len: usize,
        out: &mut Vec<libc::iovec>,
    ) -> Result<(), BufferError> {
        let slices = self.slices(offset, len)?;
        let mut end = 0;
        slices.each(|address, bytes| {
            match out.last_mut() {
                // Two ranges may touch. `end` is 0 before the first piece, so earlier iovecs of the
                // caller stay unchanged.
                Some(last) if address == end => last.iov_len = last.iov_len.wrapping_add(bytes),
                _ => {
                    let iov_base = ptr::with_exposed_provenance_mut(address);
                    out.push(libc::iovec { iov_base, iov_len: bytes });
                }
            }
            end = address.wrapping_add(bytes);
        });
        Ok(())
    }

    /// Copies bytes from guest memory at `offset` into all of `to`.
    ///
    /// # Errors
    /// [`BufferError::OutOfBounds`]; `to` is then unchanged.
    pub fn read(&self, offset: usize, to: &mut [u8]) -> Result<(), BufferError> {
        let mut rest = to;
        for slice in self.slices(offset, rest.len())? {
            let Some((now, later)) = rest.split_at_mut_checked(slice.len()) else { break };
            slice.copy_to(now);
            rest = later;
        }
        Ok(())
    }

    /// Copies all of `from` into guest memory at `offset`.
    ///
    /// # Errors
    /// [`BufferError::OutOfBounds`]; guest memory is then unchanged.
    pub fn write(&self, offset: usize, from: &[u8]) -> Result<(), BufferError> {
        let mut rest = from;
        for slice in self.slices(offset, rest.len())? {
            let Some((now, later)) = rest.split_at_checked(slice.len()) else { break };
            slice.copy_from(now);
            rest = later;
        }
        Ok(())
    }

    /// Returns a copy of the value in guest memory at `offset`. The offset needs no alignment, and
    /// the value may cross the ends of runs and ranges. The bytes are read once, so the guest
    /// cannot change the copy. Fields of more than a byte are little-endian on the wire: use the
    /// types of `zerocopy::little_endian`.
    ///
    /// # Errors
    /// [`BufferError::OutOfBounds`].
    #[inline]
    pub fn read_obj<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T, BufferError> {
        let mut value = T::new_zeroed();
        self.read(offset, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Copies a value into guest memory at `offset`. The offset needs no alignment, and the value
    /// may cross the ends of runs and ranges. The guest may see it half written.
    ///
    /// # Errors
    /// [`BufferError::OutOfBounds`]; guest memory is then unchanged.
    #[inline]
    pub fn write_obj<T: IntoBytes + Immutable>(
        &self,
        offset: usize,
        value: &T,
    ) -> Result<(), BufferError> {
        self.write(offset, value.as_bytes())
    }
}
