//! A bounded queue of frames in one allocation.

use crate::{Frame, Pieces, ReceiveError, Received, VnetHeader};

/// Bytes before each frame: its length and its header.
const PREFIX: usize = 4 + VnetHeader::LENGTH;

/// A first-in, first-out queue of frames with their headers. A ring never allocates after it was
/// made.
pub(crate) struct FrameRing {
    bytes: Box<[u8]>,
    /// Offset of the oldest frame's prefix.
    start: usize,
    /// Bytes in use.
    used: usize,
}

/// The ring has no space for the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RingFull;

impl FrameRing {
    /// Returns an empty ring of `capacity` bytes. Each frame takes 16 bytes and its own.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { bytes: vec![0; capacity].into_boxed_slice(), start: 0, used: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Returns the bytes that are free.
    pub(crate) fn free_bytes(&self) -> usize {
        self.bytes.len() - self.used
    }

    /// Appends a frame with its tag inserted.
    pub(crate) fn push(&mut self, frame: &Frame<'_>) -> Result<(), RingFull> {
        let tag = frame.tag.map(crate::vlan::Tag::to_bytes);
        let tag = tag.as_ref().map_or(&[][..], |tag| tag);
        let length = frame.pieces.len() + tag.len();
        self.reserve(length)?;
        self.append_prefix(length, frame.wire_header());
        let head = if tag.is_empty() { 0 } else { crate::vlan::OFFSET };
        self.append_pieces(frame.pieces, 0, head);
        self.append(tag);
        self.append_pieces(frame.pieces, head, frame.pieces.len() - head);
        Ok(())
    }

    /// Appends a frame of this process.
    pub(crate) fn push_bytes(&mut self, frame: &[u8], header: VnetHeader) -> Result<(), RingFull> {
        self.reserve(frame.len())?;
        self.append_prefix(frame.len(), header);
        self.append(frame);
        Ok(())
    }

    /// Removes the oldest frame and writes it to `space`.
    ///
    /// # Errors
    /// It does not fit, and is dropped.
    pub(crate) fn pop(&mut self, space: &Pieces<'_>) -> Result<Option<Received>, ReceiveError> {
        let Some((length, header)) = self.take_prefix() else { return Ok(None) };
        let result = if length > space.len() {
            Err(ReceiveError::TooLong)
        } else {
            let (first, second) = self.oldest(length);
            space.copy_from(0, first);
            space.copy_from(first.len(), second);
            Ok(Some(Received { offset: 0, length, header }))
        };
        self.discard(length);
        result
    }

    fn reserve(&self, length: usize) -> Result<(), RingFull> {
        let free = self.free_bytes();
        if length > u32::MAX as usize || free < PREFIX || free - PREFIX < length {
            return Err(RingFull);
        }
        Ok(())
    }

    fn append_prefix(&mut self, length: usize, header: VnetHeader) {
        self.append(&(length as u32).to_le_bytes());
        self.append(&header.to_bytes());
    }

    /// Appends bytes; there is space.
    fn append(&mut self, from: &[u8]) {
        let (first, second) = self.free(from.len());
        let (a, b) = from.split_at(first.len());
        first.copy_from_slice(a);
        second.copy_from_slice(b);
        self.used += from.len();
    }

    /// Appends `length` bytes of `pieces` from `offset` on; there is space.
    fn append_pieces(&mut self, pieces: &Pieces<'_>, offset: usize, length: usize) {
        let (first, second) = self.free(length);
        pieces.copy_to(offset, first);
        pieces.copy_to(offset + first.len(), second);
        self.used += length;
    }

    /// Returns the next `length` bytes that are free, in two parts.
    fn free(&mut self, length: usize) -> (&mut [u8], &mut [u8]) {
        let at = (self.start + self.used) % self.bytes.len().max(1);
        let (wrapped, straight) = self.bytes.split_at_mut(at);
        let first = length.min(straight.len());
        (&mut straight[..first], &mut wrapped[..length - first])
    }

    fn take_prefix(&mut self) -> Option<(usize, VnetHeader)> {
        if self.used < PREFIX {
            return None;
        }
        let mut prefix = [0; PREFIX];
        let (first, second) = self.oldest(PREFIX);
        prefix[..first.len()].copy_from_slice(first);
        prefix[first.len()..].copy_from_slice(second);
        self.discard(PREFIX);
        let (length, header) = prefix.split_first_chunk()?;
        let header = VnetHeader::from_bytes(header.first_chunk()?);
        Some((u32::from_le_bytes(*length) as usize, header))
    }

    /// Returns the oldest `length` bytes, in two parts.
    fn oldest(&self, length: usize) -> (&[u8], &[u8]) {
        let (wrapped, straight) = self.bytes.split_at(self.start);
        let first = length.min(straight.len());
        (&straight[..first], &wrapped[..length - first])
    }

    fn discard(&mut self, length: usize) {
        self.start = (self.start + length) % self.bytes.len().max(1);
        self.used -= length;
    }
}

impl std::fmt::Debug for FrameRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FrameRing({} of {} bytes)", self.used, self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::conformance::{Memory, frame};
    use crate::vlan::Tag;

    fn pop(ring: &mut FrameRing) -> Option<(Vec<u8>, VnetHeader)> {
        let mut memory = Memory::odd(&[0; 300]);
        let received = ring.pop(&memory.pieces()).unwrap()?;
        Some((memory.bytes()[..received.length].to_vec(), received.header))
    }

    #[test]
    fn test_ring_of_any_capacity_returns_frames_in_order() {
        for capacity in [0, 15, 29, 30, 31, 200, 333] {
            let mut ring = FrameRing::new(capacity);
            let mut model = VecDeque::new();
            let mut used = 0;
            for step in 0..400_usize {
                let bytes = frame(14 + step * 7 % 90, step as u8);
                let header = VnetHeader::checksum(step as u16, 2);
                let fits = used + PREFIX + bytes.len() <= capacity;
                assert_eq!(ring.push_bytes(&bytes, header).is_ok(), fits);
                if fits {
                    used += PREFIX + bytes.len();
                    model.push_back((bytes, header));
                }
                if step % 3 == 0 {
                    let expected = model.pop_front();
                    used -= expected.as_ref().map_or(0, |(bytes, _)| PREFIX + bytes.len());
                    assert_eq!(pop(&mut ring), expected);
                }
            }
        }
    }

    #[test]
    fn test_ring_given_a_tagged_frame_inserts_the_tag() {
        let bytes = frame(100, 9);
        let mut memory = Memory::odd(&bytes);
        let mut ring = FrameRing::new(500);
        let pieces = memory.pieces();
        let header = VnetHeader::checksum(34, 6);
        ring.push(&Frame { header, tag: Some(Tag(7)), pieces: &pieces }).unwrap();
        let expected = [&bytes[..12], &[0x81, 0, 0, 7], &bytes[12..]].concat();
        assert_eq!(pop(&mut ring), Some((expected, VnetHeader::checksum(38, 6))));
        assert!(ring.is_empty());
    }

    #[test]
    fn test_ring_with_a_frame_longer_than_the_space_drops_that_one() {
        let mut ring = FrameRing::new(500);
        ring.push_bytes(&frame(100, 1), VnetHeader::default()).unwrap();
        ring.push_bytes(&frame(20, 2), VnetHeader::default()).unwrap();
        let mut memory = Memory::whole(&[0; 99]);
        assert_eq!(ring.pop(&memory.pieces()), Err(ReceiveError::TooLong));
        assert_eq!(pop(&mut ring).unwrap().0, frame(20, 2));
    }
}
