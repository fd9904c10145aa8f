//! The bytes of an RNDIS message: a part of the send buffer, then the packet's own ranges.

use std::ops::Range;

use synthvm_net::{Pieces, TooManyPieces};
use vm_memory::VolatileSlice;
use vmbus_gpadl::GuestBuffer;

/// A message in guest memory, seen as one sequence of bytes.
#[derive(Clone, Copy)]
pub(crate) struct GuestMessage<'a> {
    /// The part of the send buffer, if the message has one.
    section: Option<(&'a GuestBuffer, usize, usize)>,
    ranges: &'a GuestBuffer,
}

impl<'a> GuestMessage<'a> {
    /// Returns the message of `bytes` of the send buffer and all of `ranges`.
    #[inline]
    pub(crate) fn new(
        section: Option<(&'a GuestBuffer, Range<u32>)>,
        ranges: &'a GuestBuffer,
    ) -> Self {
        let section = section.map(|(buffer, bytes)| {
            (buffer, bytes.start as usize, (bytes.end - bytes.start) as usize)
        });
        Self { section, ranges }
    }

    /// Returns the bytes of the message; `None` if they are more than any message may have.
    #[inline]
    pub(crate) fn len(&self) -> Option<u32> {
        u32::try_from(self.section_len().checked_add(self.ranges.len())?).ok()
    }

    /// Copies bytes from `offset` on to all of `to`. Returns false if the message ends before.
    #[inline]
    pub(crate) fn copy_to(&self, offset: usize, to: &mut [u8]) -> bool {
        if let Some(piece) = self.piece(offset, to.len()) {
            piece.copy_to(to);
            return true;
        }
        self.copy_pieces(offset, to)
    }

    #[inline(never)]
    fn copy_pieces(&self, offset: usize, to: &mut [u8]) -> bool {
        let Some((first, second)) = self.split(offset, to.len()) else { return false };
        let (head, tail) = to.split_at_mut(first.len());
        let section = match self.section {
            Some((buffer, start, _)) => buffer.read(start + first.start, head).is_ok(),
            None => head.is_empty(),
        };
        section && self.ranges.read(second.start, tail).is_ok()
    }

    /// Returns the memory of the bytes from `offset` on that are one piece. `None`: there is none.
    #[inline]
    pub(crate) fn first_piece(&self, offset: usize) -> Option<VolatileSlice<'a>> {
        match self.section {
            Some((buffer, start, section)) if offset < section => {
                buffer.first_piece(start + offset, section - offset)
            }
            Some((_, _, section)) => self.ranges.first_piece(offset - section, usize::MAX),
            None => self.ranges.first_piece(offset, usize::MAX),
        }
    }

    /// Adds the memory of `length` bytes from `offset` on to `pieces`.
    ///
    /// # Errors
    /// There are too many pieces, or the message ends before.
    #[inline]
    pub(crate) fn add_to(
        &self,
        offset: usize,
        length: usize,
        pieces: &mut Pieces<'a>,
    ) -> Result<(), TooManyPieces> {
        match self.piece(offset, length) {
            Some(piece) => pieces.push(piece),
            None => self.add_pieces(offset, length, pieces),
        }
    }

    #[inline(never)]
    fn add_pieces(
        &self,
        offset: usize,
        length: usize,
        pieces: &mut Pieces<'a>,
    ) -> Result<(), TooManyPieces> {
        let (first, second) = self.split(offset, length).ok_or(TooManyPieces)?;
        if let Some((buffer, start, _)) = self.section {
            add_memory(buffer, start + first.start, first.len(), pieces)?;
        }
        add_memory(self.ranges, second.start, second.len(), pieces)
    }

    /// Returns the memory of bytes that are one piece, as most messages of the send buffer are.
    #[inline]
    fn piece(&self, offset: usize, length: usize) -> Option<VolatileSlice<'a>> {
        let end = offset.checked_add(length)?;
        match self.section {
            Some((buffer, start, section)) if end <= section => {
                buffer.piece(start.checked_add(offset)?, length)
            }
            Some((_, _, section)) => self.ranges.piece(offset.checked_sub(section)?, length),
            None => self.ranges.piece(offset, length),
        }
    }

    #[inline]
    fn section_len(&self) -> usize {
        self.section.map_or(0, |(_, _, length)| length)
    }

    /// Splits a range of the message into its bytes of the section and those of the ranges.
    fn split(&self, offset: usize, length: usize) -> Option<(Range<usize>, Range<usize>)> {
        let section = self.section_len();
        let end = offset.checked_add(length)?;
        if end > section.checked_add(self.ranges.len())? {
            return None;
        }
        let first = offset.min(section)..end.min(section);
        let second = offset.saturating_sub(section)..end.saturating_sub(section);
        Some((first, second))
    }
}

/// Adds the memory of `length` bytes of `buffer` from `offset` on to `pieces`.
///
/// # Errors
/// There are too many pieces, or the buffer ends before.
#[inline]
pub(crate) fn add_memory<'a>(
    buffer: &'a GuestBuffer,
    offset: usize,
    length: usize,
    pieces: &mut Pieces<'a>,
) -> Result<(), TooManyPieces> {
    match buffer.piece(offset, length) {
        Some(piece) => pieces.push(piece),
        None => add_slices(buffer, offset, length, pieces),
    }
}

#[inline(never)]
fn add_slices<'a>(
    buffer: &'a GuestBuffer,
    offset: usize,
    length: usize,
    pieces: &mut Pieces<'a>,
) -> Result<(), TooManyPieces> {
    let slices = buffer.slices(offset, length).map_err(|_| TooManyPieces)?;
    slices.into_iter().try_for_each(|slice| pieces.push(slice))
}
