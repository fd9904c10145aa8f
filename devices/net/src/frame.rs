//! A frame to send.

use crate::vlan::{self, Tag};
use crate::{Offloads, Pieces, SendError, VnetHeader};

/// Bytes of the shortest frame: an Ethernet header. Backends do not pad.
pub const MIN_FRAME: usize = 14;

/// Bytes of the longest frame: an Ethernet header and 65,535 bytes. A tag that is inserted is not
/// counted.
pub const MAX_FRAME: usize = 65_535 + MIN_FRAME;

/// An Ethernet frame in guest memory, with its offload request.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The offload request; empty for none.
    pub header: VnetHeader,
    /// The tag to insert after the two addresses. The bytes in memory have none.
    pub tag: Option<Tag>,
    /// The bytes, from the destination's address on. The guest may change them at any moment.
    pub pieces: &'a Pieces<'a>,
}

impl<'a> Frame<'a> {
    /// Returns the frame of these bytes, without offload request and tag.
    pub fn new(pieces: &'a Pieces<'a>) -> Self {
        Self { header: VnetHeader::default(), tag: None, pieces }
    }

    /// Returns the offload request as it is when the tag is inserted.
    pub fn wire_header(&self) -> VnetHeader {
        if self.tag.is_some() { self.header.shifted(Tag::LENGTH as u16) } else { self.header }
    }

    /// Appends the bytes of the frame, with its tag inserted.
    pub(crate) fn copy_to(&self, out: &mut Vec<u8>) {
        let head = if self.tag.is_some() { vlan::OFFSET.min(self.pieces.len()) } else { 0 };
        let start = out.len();
        out.resize(start + head, 0);
        self.pieces.copy_to(0, &mut out[start..]);
        out.extend(self.tag.iter().flat_map(|tag| tag.to_bytes()));
        let start = out.len();
        out.resize(start + self.pieces.len() - head, 0);
        self.pieces.copy_to(head, &mut out[start..]);
    }

    /// Checks the frame against a backend that has `offloads` and takes frames of up to `limit`
    /// bytes, or longer ones that it splits.
    ///
    /// # Errors
    /// `Length`, `Malformed` or `Unsupported`.
    pub fn check(&self, offloads: Offloads, limit: usize) -> Result<(), SendError> {
        let length = self.pieces.len();
        let limit = if self.header.gso_type == 0 { limit.min(MAX_FRAME) } else { MAX_FRAME };
        if !(MIN_FRAME..=limit).contains(&length) {
            return Err(SendError::Length(length));
        }
        if self.header == VnetHeader::default() {
            return Ok(());
        }
        if !self.header.fits(length) {
            return Err(SendError::Malformed);
        }
        match Offloads::needed(&self.header) {
            Some(needed) if offloads.contains(needed) => Ok(()),
            _ => Err(SendError::Unsupported),
        }
    }
}
