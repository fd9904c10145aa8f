//! Reads and writes of a guest buffer: pieces, iovecs, bytes and typed values.

use std::ptr;

use thiserror::Error;
use vm_memory::VolatileSlice;
use vmbus_protocol::limits::{PAGE_SHIFT, PAGE_SIZE};
use vmbus_protocol::num::usize_of;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::buffer::{GuestBuffer, Place};
use crate::slices::{Slices, slice_at};

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

    /// Returns the host memory of `len` bytes from `offset`, at least one, if all of it lies in one
    /// run of one range. Otherwise [`GuestBuffer::slices`] has the bytes; this is faster.
    #[inline]
    #[must_use]
    pub fn piece(&self, offset: usize, len: usize) -> Option<VolatileSlice<'_>> {
        if len == 0 || offset.checked_add(len)? > self.len() {
            return None;
        }
        let (address, contiguous) = self.contiguous_from(offset)?;
        // SAFETY: the bytes lie in one run of this buffer, which the slice borrows.
        (len <= contiguous).then(|| unsafe { slice_at(address, len) })
    }

    /// Returns the host memory from `offset` on, up to `most` bytes: less where a run or a range
    /// ends before. `None`: there is no byte.
    #[inline]
    #[must_use]
    pub fn first_piece(&self, offset: usize, most: usize) -> Option<VolatileSlice<'_>> {
        let (address, contiguous) = self.contiguous_from(offset)?;
        let len = contiguous.min(most);
        // SAFETY: as above.
        (len != 0).then(|| unsafe { slice_at(address, len) })
    }

    /// Returns the host address of byte `offset`, and the number of bytes from there to the end of
    /// its run or range.
    #[inline]
    fn contiguous_from(&self, offset: usize) -> Option<(usize, usize)> {
        if offset >= self.len() {
            return None;
        }
        let (range, place) = match self.range_list() {
            [range] => (range, Place::default()),
            ranges => {
                let (index, place) = self.range_of(offset);
                (ranges.get(index)?, place)
            }
        };
        let into_range = offset.wrapping_sub(usize_of(place.start));
        let position = usize::from(range.byte_offset).wrapping_add(into_range);
        let (run, into_run) = match self.run_list() {
            [run] => (run, position),
            runs => {
                let page = usize::from(place.first_page).wrapping_add(position >> PAGE_SHIFT);
                let (index, before) = self.run_of(range, place, page);
                let in_page = position & PAGE_SIZE.wrapping_sub(1);
                (runs.get(index)?, before.wrapping_mul(PAGE_SIZE).wrapping_add(in_page))
            }
        };
        let in_range = usize_of(range.count).saturating_sub(into_range);
        let in_run = run.bytes().saturating_sub(into_run);
        Some((run.host_address().wrapping_add(into_run), in_range.min(in_run)))
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
    #[inline]
    pub fn read(&self, offset: usize, to: &mut [u8]) -> Result<(), BufferError> {
        if let Some(piece) = self.piece(offset, to.len()) {
            piece.copy_to(to);
            return Ok(());
        }
        self.read_pieces(offset, to)
    }

    #[inline(never)]
    fn read_pieces(&self, offset: usize, to: &mut [u8]) -> Result<(), BufferError> {
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
    #[inline]
    pub fn write(&self, offset: usize, from: &[u8]) -> Result<(), BufferError> {
        if let Some(piece) = self.piece(offset, from.len()) {
            piece.copy_from(from);
            return Ok(());
        }
        self.write_pieces(offset, from)
    }

    #[inline(never)]
    fn write_pieces(&self, offset: usize, from: &[u8]) -> Result<(), BufferError> {
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
