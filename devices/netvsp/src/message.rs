//! The bytes of an RNDIS message: a part of the send buffer, then the packet's own ranges.

use std::ops::Range;

use synthvm_net::{Pieces, TooManyPieces};
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
    pub(crate) fn len(&self) -> Option<u32> {
        u32::try_from(self.section_len().checked_add(self.ranges.len())?).ok()
    }

    /// Copies bytes from `offset` on to all of `to`. Returns false if the message ends before.
    pub(crate) fn copy_to(&self, offset: usize, to: &mut [u8]) -> bool {
        let Some((first, second)) = self.split(offset, to.len()) else { return false };
        let (head, tail) = to.split_at_mut(first.len());
        let section = match self.section {
            Some((buffer, start, _)) => buffer.read(start + first.start, head).is_ok(),
            None => head.is_empty(),
        };
        section && self.ranges.read(second.start, tail).is_ok()
    }

    /// Adds the memory of `length` bytes from `offset` on to `pieces`.
    ///
    /// # Errors
    /// There are too many pieces, or the message ends before.
    pub(crate) fn add_to(
        &self,
        offset: usize,
        length: usize,
        pieces: &mut Pieces<'a>,
    ) -> Result<(), TooManyPieces> {
        let (first, second) = self.split(offset, length).ok_or(TooManyPieces)?;
        if let Some((buffer, start, _)) = self.section {
            let slices = buffer.slices(start + first.start, first.len());
            slices.map_err(|_| TooManyPieces)?.try_for_each(|slice| pieces.push(slice))?;
        }
        let slices = self.ranges.slices(second.start, second.len());
        slices.map_err(|_| TooManyPieces)?.try_for_each(|slice| pieces.push(slice))
    }

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
