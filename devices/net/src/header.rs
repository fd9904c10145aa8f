//! The virtio-net header: the offload request or state of one frame.

/// A virtio-net header in the form of 12 bytes (`struct virtio_net_hdr_v1` in Linux
/// include/uapi/linux/virtio_net.h; virtio 1.2, 5.1.6). Offsets count from the first byte of
/// the frame in memory, without a tag that the backend inserts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// [`VnetHeader::NEEDS_CHECKSUM`], [`VnetHeader::CHECKSUM_VALID`].
    pub flags: u8,
    /// `VIRTIO_NET_HDR_GSO_*`; [`VnetHeader::segmentation`] decodes it.
    pub gso_type: u8,
    /// Bytes of the Ethernet, IP and transport headers of a frame that is to be split. A hint.
    pub header_length: u16,
    /// Payload bytes of each segment.
    pub gso_size: u16,
    /// Offset of the transport header: the checksum covers the bytes from there to the end.
    pub checksum_start: u16,
    /// Offset of the checksum after `checksum_start`.
    pub checksum_offset: u16,
}

/// How a frame is split or was coalesced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segmentation {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP, each segment with its own UDP header (`VIRTIO_NET_HDR_GSO_UDP_L4`).
    Udp,
}

/// The gso_type is none that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownSegmentation;

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// A flag: the TCP frame has CWR set.
const GSO_ECN: u8 = 0x80;

impl VnetHeader {
    /// Bytes of the encoded form.
    pub const LENGTH: usize = 12;
    /// Flag: the checksum is to be filled in; its field holds the pseudo-header's sum.
    pub const NEEDS_CHECKSUM: u8 = 1;
    /// Flag: the checksum was verified.
    pub const CHECKSUM_VALID: u8 = 2;

    /// Returns the header of a frame whose checksum is to be filled in at `start` + `offset`, over
    /// all bytes from `start` on.
    pub fn checksum(start: u16, offset: u16) -> Self {
        Self {
            flags: Self::NEEDS_CHECKSUM,
            checksum_start: start,
            checksum_offset: offset,
            ..Self::default()
        }
    }

    /// Returns the header of a frame that is to be split: `size` payload bytes to a segment,
    /// `header_length` bytes of headers in each.
    #[must_use]
    pub fn split(self, kind: Segmentation, size: u16, header_length: u16) -> Self {
        let gso_type = match kind {
            Segmentation::Tcp4 => GSO_TCPV4,
            Segmentation::Tcp6 => GSO_TCPV6,
            Segmentation::Udp => GSO_UDP_L4,
        };
        Self { gso_type, gso_size: size, header_length, ..self }
    }

    /// Returns whether the checksum is to be filled in.
    pub fn needs_checksum(&self) -> bool {
        self.flags & Self::NEEDS_CHECKSUM != 0
    }

    /// Returns the kind of segmentation; `None` for a frame that is whole.
    ///
    /// # Errors
    /// The kind is unknown.
    pub fn segmentation(&self) -> Result<Option<Segmentation>, UnknownSegmentation> {
        match self.gso_type & !GSO_ECN {
            GSO_NONE => Ok(None),
            GSO_TCPV4 => Ok(Some(Segmentation::Tcp4)),
            GSO_TCPV6 => Ok(Some(Segmentation::Tcp6)),
            GSO_UDP_L4 => Ok(Some(Segmentation::Udp)),
            _ => Err(UnknownSegmentation),
        }
    }

    /// Returns whether the request fits a frame of `length` bytes.
    pub fn fits(&self, length: usize) -> bool {
        let start = usize::from(self.checksum_start);
        let field = start + usize::from(self.checksum_offset);
        if self.needs_checksum() && (start < crate::MIN_FRAME || field + 2 > length) {
            return false;
        }
        match self.segmentation() {
            Ok(None) => true,
            // A segment's checksum has to be computed whatever the frame says.
            Ok(Some(_)) => {
                self.needs_checksum()
                    && self.gso_size != 0
                    && usize::from(self.header_length) <= length
            }
            Err(UnknownSegmentation) => false,
        }
    }

    /// Returns the header for the same frame with `bytes` more before the network header.
    #[must_use]
    pub fn shifted(self, bytes: u16) -> Self {
        let mut shifted = self;
        if self.needs_checksum() {
            shifted.checksum_start = self.checksum_start.saturating_add(bytes);
        }
        if self.header_length != 0 {
            shifted.header_length = self.header_length.saturating_add(bytes);
        }
        shifted
    }

    /// Encodes the header; little-endian. `num_buffers` is 0.
    pub fn to_bytes(self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[0] = self.flags;
        bytes[1] = self.gso_type;
        let words = [self.header_length, self.gso_size, self.checksum_start, self.checksum_offset];
        for (field, word) in bytes[2..10].chunks_exact_mut(2).zip(words) {
            field.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Decodes a header; little-endian. Any bytes are a header.
    pub fn from_bytes(bytes: &[u8; Self::LENGTH]) -> Self {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            gso_type: bytes[1],
            header_length: word(2),
            gso_size: word(4),
            checksum_start: word(6),
            checksum_offset: word(8),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_header_encoded_has_the_layout_of_linux() {
        let header = VnetHeader::checksum(0x22, 0x10).split(Segmentation::Tcp6, 0x5a8, 0x36);
        let bytes = header.to_bytes();
        assert_eq!(bytes, [1, 4, 0x36, 0, 0xa8, 5, 0x22, 0, 0x10, 0, 0, 0]);
        assert_eq!(VnetHeader::from_bytes(&bytes), header);
    }

    #[test]
    fn test_header_beyond_the_frame_does_not_fit() {
        assert!(VnetHeader::checksum(34, 16).fits(52));
        assert!(!VnetHeader::checksum(34, 16).fits(51));
        assert!(!VnetHeader::checksum(13, 16).fits(52), "inside the Ethernet header");
        assert!(!VnetHeader::checksum(u16::MAX, u16::MAX).fits(65535));
        assert!(!VnetHeader::checksum(34, 16).split(Segmentation::Tcp4, 0, 54).fits(100));
        assert!(!VnetHeader::checksum(34, 16).split(Segmentation::Tcp4, 9, 101).fits(100));
        let without_checksum = VnetHeader::default().split(Segmentation::Udp, 9, 42);
        assert!(!without_checksum.fits(100));
        assert!(!VnetHeader { gso_type: 3, ..VnetHeader::default() }.fits(100), "UFO");
    }

    #[test]
    fn test_header_shifted_moves_the_offsets_in_use() {
        let shifted = VnetHeader::checksum(34, 16).split(Segmentation::Tcp4, 9, 54).shifted(4);
        assert_eq!((shifted.checksum_start, shifted.header_length), (38, 58));
        assert_eq!(VnetHeader::default().shifted(4), VnetHeader::default());
    }
}
