//! The 802.1Q tag: inserted into frames that are sent, removed from frames that are received.

use crate::{MIN_FRAME, Pieces, Received};

/// Offset of the tag in a frame: after the two addresses.
pub const OFFSET: usize = 12;

/// The EtherType of a tag.
const TPID: u16 = 0x8100;

/// The tag control information of an 802.1Q tag (IEEE 802.1Q, 9.6): the priority in bits 15 to 13,
/// the drop eligible indicator in bit 12, the VLAN's number in bits 11 to 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(pub u16);

impl Tag {
    /// Bytes of a tag in a frame.
    pub const LENGTH: usize = 4;

    /// Encodes the tag as it is in a frame: big-endian.
    pub fn to_bytes(self) -> [u8; Self::LENGTH] {
        let ([a, b], [c, d]) = (TPID.to_be_bytes(), self.0.to_be_bytes());
        [a, b, c, d]
    }

    /// Decodes the tag at the start of `bytes`. `None`: there is none.
    #[inline]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, d] = *bytes.first_chunk()?;
        (u16::from_be_bytes([a, b]) == TPID).then(|| Self(u16::from_be_bytes([c, d])))
    }
}

/// Removes the tag of a received frame, if it has one: moves the two addresses by four bytes, so
/// that the frame begins four bytes later in `space`. Offsets in the header move with it.
#[inline]
pub fn strip(space: &Pieces<'_>, received: &mut Received) -> Option<Tag> {
    if received.length < MIN_FRAME + Tag::LENGTH {
        return None;
    }
    let mut start = [0; OFFSET + Tag::LENGTH];
    if space.copy_to(received.offset, &mut start) < start.len() {
        return None;
    }
    let tag = Tag::from_bytes(start.last_chunk::<{ Tag::LENGTH }>()?)?;
    strip_tag(space, received, &start[..OFFSET], tag)
}

#[inline(never)]
fn strip_tag(
    space: &Pieces<'_>,
    received: &mut Received,
    addresses: &[u8],
    tag: Tag,
) -> Option<Tag> {
    received.offset += Tag::LENGTH;
    received.length -= Tag::LENGTH;
    space.copy_from(received.offset, addresses);
    let header = &mut received.header;
    header.checksum_start = header.checksum_start.saturating_sub(Tag::LENGTH as u16);
    header.header_length = header.header_length.saturating_sub(Tag::LENGTH as u16);
    Some(tag)
}

#[cfg(test)]
mod tests {
    use vm_memory::VolatileSlice;

    use super::*;
    use crate::VnetHeader;

    fn strip_from(mut bytes: Vec<u8>, cut: usize) -> (Option<Tag>, Received, Vec<u8>) {
        let length = bytes.len();
        let mut space = Pieces::new();
        let (a, b) = bytes.split_at_mut(cut);
        space.push(VolatileSlice::from(a)).unwrap();
        space.push(VolatileSlice::from(b)).unwrap();
        let header = VnetHeader::checksum(38, 16);
        let mut received = Received { offset: 0, length, header };
        let tag = strip(&space, &mut received);
        let mut rest = vec![0; received.length];
        space.copy_to(received.offset, &mut rest);
        (tag, received, rest)
    }

    #[test]
    fn test_strip_of_a_tagged_frame_moves_the_addresses() {
        let mut frame: Vec<u8> = (0..12).collect();
        frame.extend(Tag(0xa123).to_bytes());
        frame.extend([8, 0, 42, 43]);
        for cut in [0, 1, 5, 13, 14, 20] {
            let (tag, received, rest) = strip_from(frame.clone(), cut);
            assert_eq!(tag, Some(Tag(0xa123)));
            assert_eq!((received.offset, received.header.checksum_start), (4, 34));
            assert_eq!(rest, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 8, 0, 42, 43]);
        }
    }

    #[test]
    fn test_strip_of_a_frame_without_tag_changes_nothing() {
        let plain: Vec<u8> = (0..40).collect();
        let mut short: Vec<u8> = (0..12).collect();
        short.extend(Tag(1).to_bytes());
        for frame in [plain, short] {
            let (tag, received, rest) = strip_from(frame.clone(), 3);
            assert_eq!((tag, received.offset), (None, 0));
            assert_eq!(rest, frame);
        }
    }
}
