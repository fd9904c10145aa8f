//! Memory in pieces, and frames with a known content.

use vm_memory::VolatileSlice;

use crate::Pieces;

/// Bytes between the pieces, which nothing may change.
const GAP: usize = 3;
const CANARY: u8 = 0xee;

/// Lengths of pieces, repeated: odd ones, single bytes, and pages.
const ODD: [usize; 7] = [1, 13, 1, 7, 301, 4096, 2];

/// Memory of a frame, in pieces with untouchable bytes between them.
#[derive(Debug)]
pub struct Memory {
    bytes: Vec<u8>,
    lengths: Vec<usize>,
}

impl Memory {
    /// Returns the bytes in one piece.
    pub fn whole(bytes: &[u8]) -> Self {
        Self::cut(bytes, &[bytes.len().max(1)])
    }

    /// Returns the bytes in many pieces of odd lengths.
    pub fn odd(bytes: &[u8]) -> Self {
        Self::cut(bytes, &ODD)
    }

    /// Returns the bytes in pieces of these lengths, which repeat.
    pub fn cut(bytes: &[u8], lengths: &[usize]) -> Self {
        let mut memory = Self { bytes: vec![CANARY; GAP], lengths: Vec::new() };
        let (mut rest, mut lengths) = (bytes, lengths.iter().cycle());
        while !rest.is_empty() {
            let length = lengths.next().copied().unwrap_or(usize::MAX).clamp(1, rest.len());
            memory.bytes.extend(&rest[..length]);
            memory.bytes.extend([CANARY; GAP]);
            memory.lengths.push(length);
            rest = &rest[length..];
        }
        memory
    }

    /// Returns the pieces.
    ///
    /// # Panics
    /// They are too many.
    pub fn pieces(&mut self) -> Pieces<'_> {
        let mut pieces = Pieces::new();
        let mut rest = &mut self.bytes[..];
        for length in &self.lengths {
            let (piece, next) = rest[GAP..].split_at_mut(*length);
            pieces.push(VolatileSlice::from(piece)).expect("few pieces");
            rest = next;
        }
        pieces
    }

    /// Returns the bytes without the gaps.
    ///
    /// # Panics
    /// A gap was changed.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut at = 0;
        for length in &self.lengths {
            assert_eq!(self.bytes[at..at + GAP], [CANARY; GAP], "before byte {}", bytes.len());
            bytes.extend(&self.bytes[at + GAP..][..*length]);
            at += GAP + length;
        }
        assert_eq!(self.bytes[at..], [CANARY; GAP], "at the end");
        bytes
    }
}

/// The EtherType for local experiments (IEEE 802).
const ETHER_TYPE: [u8; 2] = [0x88, 0xb5];

/// Returns a frame of `length` bytes (at least 14) whose content follows from `seed`.
pub fn frame(length: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0x02, 0, 0, 0, 0, 0xff, 0x02, 0, 0, 0, 1, seed];
    bytes.extend(ETHER_TYPE);
    let mut state = u32::from(seed) << 8 | 1;
    while bytes.len() < length {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bytes.push((state >> 24) as u8);
    }
    bytes
}

/// Returns whether a frame is one of [`frame`], with or without a tag.
pub fn is_test_frame(bytes: &[u8]) -> bool {
    let at = if bytes.get(12..14) == Some(&[0x81, 0]) { 16 } else { 12 };
    bytes.get(at..at + 2) == Some(&ETHER_TYPE)
}
