//! Guest memory of one frame.

use std::fmt;
use std::marker::PhantomData;

use vm_memory::VolatileSlice;

/// The largest number of pieces in a list. A frame of 64 KiB in 32 ranges of scattered pages has at
/// most 81.
pub const MAX_PIECES: usize = 256;

/// A list of slices of guest memory that stay mapped for `'a`, in the form of iovecs.
///
/// No reference to guest memory is formed: bytes move by volatile copies and system calls. A list
/// allocates once; [`Pieces::recycle`] makes it usable for the next frame.
pub struct Pieces<'a> {
    iovecs: Vec<libc::iovec>,
    length: usize,
    memory: PhantomData<VolatileSlice<'a>>,
}

/// The list has [`MAX_PIECES`] pieces, or more bytes than the address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame has too many pieces")]
pub struct TooManyPieces;

// SAFETY: a list only names memory that stays mapped for 'a and belongs to no thread. Bytes are
// reached by volatile copies and system calls, which tolerate other accesses.
unsafe impl Send for Pieces<'_> {}

// SAFETY: as for Send; `&self` only reads the list itself.
unsafe impl Sync for Pieces<'_> {}

impl Default for Pieces<'_> {
    /// Returns an empty list that allocates when it is first used.
    #[inline]
    fn default() -> Self {
        Self { iovecs: Vec::new(), length: 0, memory: PhantomData }
    }
}

impl<'a> Pieces<'a> {
    /// Returns an empty list with memory for [`MAX_PIECES`].
    pub fn new() -> Self {
        Self { iovecs: Vec::with_capacity(MAX_PIECES), length: 0, memory: PhantomData }
    }

    /// Appends a slice. An empty one is left out.
    ///
    /// # Errors
    /// The list is full; it is unchanged.
    #[inline]
    pub fn push(&mut self, slice: VolatileSlice<'a>) -> Result<(), TooManyPieces> {
        if slice.is_empty() {
            return Ok(());
        }
        let length = self.length.checked_add(slice.len()).ok_or(TooManyPieces)?;
        if self.iovecs.len() >= MAX_PIECES {
            return Err(TooManyPieces);
        }
        // The slices of the backends in use are mapped all the time: the guard maps nothing.
        let base = slice.ptr_guard_mut().as_ptr();
        self.iovecs.push(libc::iovec { iov_base: base.cast(), iov_len: slice.len() });
        self.length = length;
        Ok(())
    }

    /// Removes the first `count` pieces, or all if there are fewer.
    pub fn remove_first(&mut self, count: usize) {
        let removed = self.iovecs.drain(..count.min(self.iovecs.len()));
        self.length -= removed.map(|piece| piece.iov_len).sum::<usize>();
    }

    /// Removes all pieces.
    #[inline]
    pub fn clear(&mut self) {
        self.iovecs.clear();
        self.length = 0;
    }

    /// Returns the list empty, for memory of another lifetime. Allocates nothing.
    #[inline]
    pub fn recycle<'b>(mut self) -> Pieces<'b> {
        self.clear();
        Pieces { iovecs: self.iovecs, length: 0, memory: PhantomData }
    }

    /// Returns the number of bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Returns whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Returns the pieces for the kernel; each has at least one byte. They are valid for `'a`.
    #[inline]
    pub fn iovecs(&self) -> &[libc::iovec] {
        &self.iovecs
    }

    /// Returns the pieces for volatile copies.
    pub fn slices(&self) -> impl Iterator<Item = VolatileSlice<'a>> {
        // SAFETY: each iovec is from a slice that is valid for 'a.
        self.iovecs
            .iter()
            .map(|piece| unsafe { VolatileSlice::new(piece.iov_base.cast(), piece.iov_len) })
    }

    /// Copies bytes from `offset` on to `to`. Returns how many there were, up to the length of
    /// `to`.
    #[inline]
    pub fn copy_to(&self, offset: usize, to: &mut [u8]) -> usize {
        if let Some(piece) = self.within_first(offset, to.len()) {
            return piece.copy_to(to);
        }
        self.copy_pieces_to(offset, to)
    }

    #[inline(never)]
    fn copy_pieces_to(&self, offset: usize, to: &mut [u8]) -> usize {
        let mut done = 0;
        for slice in self.slices_from(offset) {
            let Some(rest) = to.get_mut(done..).filter(|rest| !rest.is_empty()) else { break };
            done += slice.copy_to(rest);
        }
        done
    }

    /// Copies `from` to the bytes from `offset` on. Returns how many there were, up to the length
    /// of `from`.
    #[inline]
    pub fn copy_from(&self, offset: usize, from: &[u8]) -> usize {
        if let Some(piece) = self.within_first(offset, from.len()) {
            piece.copy_from(from);
            return from.len();
        }
        self.copy_to_pieces(offset, from)
    }

    #[inline(never)]
    fn copy_to_pieces(&self, offset: usize, from: &[u8]) -> usize {
        let mut done = 0;
        for slice in self.slices_from(offset) {
            let rest = from.get(done..).unwrap_or_default();
            let count = rest.len().min(slice.len());
            if count == 0 {
                break;
            }
            slice.copy_from(&rest[..count]);
            done += count;
        }
        done
    }

    /// Returns bytes that are all in the first piece, as the headers of most frames are.
    #[inline]
    fn within_first(&self, offset: usize, length: usize) -> Option<VolatileSlice<'a>> {
        let piece = self.slices().next()?;
        let end = offset.checked_add(length)?;
        if end <= piece.len() { piece.subslice(offset, length).ok() } else { None }
    }

    fn slices_from(&self, offset: usize) -> impl Iterator<Item = VolatileSlice<'a>> {
        let mut skip = offset;
        self.slices().filter_map(move |slice| {
            let begin = skip.min(slice.len());
            skip -= begin;
            slice.offset(begin).ok().filter(|rest| !rest.is_empty())
        })
    }
}

impl fmt::Debug for Pieces<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pieces({} bytes in {})", self.length, self.iovecs.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_pieces_copied_at_any_offset_are_the_bytes_in_order() {
        let mut memory: Vec<u8> = (0..100).collect();
        let expected = memory.clone();
        let mut pieces = Pieces::new();
        let (a, rest) = memory.split_at_mut(1);
        let (b, c) = rest.split_at_mut(50);
        for part in [a, b, &mut [], c] {
            pieces.push(VolatileSlice::from(part)).unwrap();
        }
        assert_eq!((pieces.len(), pieces.iovecs().len()), (100, 3));
        for offset in 0..110 {
            let mut bytes = [0; 60];
            let count = pieces.copy_to(offset, &mut bytes);
            assert_eq!(
                bytes[..count],
                *expected.get(offset..).unwrap_or_default().split_at(count).0
            );
            assert_eq!(count, 60.min(100_usize.saturating_sub(offset)));
        }
        assert_eq!(pieces.copy_from(49, &[7; 60]), 51);
        let mut bytes = [0; 100];
        pieces.copy_to(0, &mut bytes);
        assert_eq!(bytes[..49], expected[..49]);
        assert_eq!(bytes[49..], [7; 51]);
    }

    #[test]
    fn test_pieces_beyond_the_bound_are_refused_and_recycling_keeps_the_memory() {
        let mut memory = [0; MAX_PIECES + 1];
        let mut pieces = Pieces::new();
        let mut bytes = memory.chunks_mut(1);
        for byte in bytes.by_ref().take(MAX_PIECES) {
            pieces.push(VolatileSlice::from(byte)).unwrap();
        }
        let last = VolatileSlice::from(bytes.next().unwrap());
        assert_eq!(pieces.push(last), Err(TooManyPieces));
        assert_eq!(pieces.len(), MAX_PIECES);
        let list = pieces.iovecs().as_ptr();
        let pieces: Pieces<'static> = pieces.recycle();
        assert!(pieces.is_empty() && pieces.iovecs().as_ptr() == list);
    }

    #[test]
    fn test_pieces_removed_at_the_start_leave_the_others_and_room_for_as_many() {
        let mut memory: Vec<u8> = (0..=255).cycle().take(3 * MAX_PIECES).collect();
        let mut bytes = memory.chunks_mut(1);
        let mut pieces = Pieces::new();
        for byte in bytes.by_ref().take(MAX_PIECES) {
            pieces.push(VolatileSlice::from(byte)).unwrap();
        }
        let list = pieces.iovecs().as_ptr();
        for (number, byte) in bytes.enumerate() {
            pieces.remove_first(1);
            let mut all = [0; MAX_PIECES];
            assert_eq!(pieces.copy_to(0, &mut all), MAX_PIECES - 1);
            assert_eq!((all[0], pieces.len()), ((number + 1) as u8, MAX_PIECES - 1));
            pieces.push(VolatileSlice::from(byte)).unwrap();
            assert_eq!(pieces.iovecs().len(), MAX_PIECES);
        }
        pieces.remove_first(MAX_PIECES + 1);
        assert!(pieces.is_empty() && pieces.iovecs().as_ptr() == list, "no other memory");
    }
}
