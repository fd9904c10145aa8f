//! The information in the answer to a query.

/// The information in the answer to a query: at most 512 bytes, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OidAnswer {
    bytes: [u8; Self::MAX],
    length: u16,
}

impl OidAnswer {
    /// Most bytes of an answer: those of the friendly name.
    pub const MAX: usize = 512;

    /// Returns the bytes of the answer.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length.into()]
    }

    pub(super) const fn new() -> Self {
        Self { bytes: [0; Self::MAX], length: 0 }
    }

    /// Creates an answer of one 32-bit number.
    pub(super) fn word(word: u32) -> Self {
        Self::new().u32(word)
    }

    /// Appends the header of an NDIS object.
    pub(super) fn header(self, kind: u8, revision: u8, size: u16) -> Self {
        self.append(&[kind, revision]).u16(size)
    }

    pub(super) fn u16(self, number: u16) -> Self {
        self.append(&number.to_le_bytes())
    }

    pub(super) fn u32(self, number: u32) -> Self {
        self.append(&number.to_le_bytes())
    }

    pub(super) fn u64(self, number: u64) -> Self {
        self.append(&number.to_le_bytes())
    }

    /// Appends as many of `bytes` as fit.
    pub(super) fn append(mut self, bytes: &[u8]) -> Self {
        let start = usize::from(self.length);
        let room = &mut self.bytes[start..];
        let length = bytes.len().min(room.len());
        room[..length].copy_from_slice(&bytes[..length]);
        self.length += length as u16;
        self
    }

    /// Cuts the answer to `length` bytes, or extends it with zeros.
    pub(super) fn resized(mut self, length: u16) -> Self {
        let length = length.min(Self::MAX as u16);
        self.bytes[length.into()..].fill(0);
        self.length = length;
        self
    }
}
