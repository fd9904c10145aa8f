//! TCP and UDP frames of many shapes for tests, with the checks of a receiver.

use super::{TCP, UDP};
use crate::{Segmentation, VnetHeader};

/// A frame for a test: headers of some shape, then a payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) tags: usize,
    pub(crate) v6: bool,
    /// Bytes of IPv4 options or of one IPv6 extension header.
    pub(crate) extra: usize,
    pub(crate) tcp: bool,
    /// Bytes of TCP options.
    pub(crate) options: usize,
    pub(crate) payload: usize,
}

impl Shape {
    pub(crate) fn network(&self) -> usize {
        14 + 4 * self.tags
    }

    pub(crate) fn transport(&self) -> usize {
        self.network() + if self.v6 { 40 } else { 20 } + self.extra
    }

    pub(crate) fn payload_at(&self) -> usize {
        self.transport() + if self.tcp { 20 + self.options } else { 8 }
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        (0..self.tags).for_each(|_| frame.extend([0x81, 0, 0x20, 5]));
        let protocol = if self.tcp { TCP } else { UDP };
        if self.v6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0]);
            frame.extend([if self.extra == 0 { protocol } else { 60 }, 64]);
            frame.extend(1..=32);
            if self.extra != 0 {
                frame.extend([protocol, (self.extra / 8 - 1) as u8]);
                frame.extend(vec![0; self.extra - 2]);
            }
        } else {
            frame.extend([8, 0, 0x40 | (5 + self.extra / 4) as u8, 0, 0, 0]);
            frame.extend([0xff, 0xfe, 0x40, 0, 64, protocol, 0, 0]);
            frame.extend(1..=8);
            frame.extend(vec![1; self.extra]);
        }
        if self.tcp {
            frame.extend([0x12, 0x34, 0, 80, 0xff, 0xff, 0xf0, 0, 9, 9, 9, 9]);
            // CWR, ACK, PSH and FIN.
            frame.extend([((5 + self.options / 4) << 4) as u8, 0x99, 1, 2, 0xaa, 0xbb, 0, 0]);
            frame.extend(vec![1; self.options]);
        } else {
            frame.extend([0x12, 0x34, 0, 53, 0, 0, 0xaa, 0xbb]);
        }
        frame.extend((0..self.payload).map(|at| (at * 7 + at / 251) as u8));
        frame
    }

    pub(crate) fn request(&self, size: u16) -> VnetHeader {
        let kind = match (self.tcp, self.v6) {
            (false, _) => Segmentation::Udp,
            (true, false) => Segmentation::Tcp4,
            (true, true) => Segmentation::Tcp6,
        };
        let offset = if self.tcp { 16 } else { 6 };
        VnetHeader::checksum(self.transport() as u16, offset).split(
            kind,
            size,
            self.payload_at() as u16,
        )
    }
}

/// The one's complement sum of 16-bit words, in the slowest way.
fn plain_sum(bytes: &[u8]) -> u32 {
    let mut sum = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

pub(crate) fn word(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

/// Checks lengths and checksums of one segment as a receiver does. Returns its payload.
pub(crate) fn check_segment<'a>(shape: &Shape, segment: &'a [u8]) -> &'a [u8] {
    let (network, transport) = (shape.network(), shape.transport());
    let packet = &segment[network..];
    let addresses = if shape.v6 {
        assert_eq!(word(packet, 4), packet.len() - 40);
        &packet[8..40]
    } else {
        assert_eq!(word(packet, 2), packet.len());
        assert_eq!(plain_sum(&packet[..transport - network]), 0xffff, "the IP header's checksum");
        &packet[12..20]
    };
    let length = segment.len() - transport;
    let protocol = if shape.tcp { TCP } else { UDP };
    let mut covered = addresses.to_vec();
    covered.extend((length as u32).to_be_bytes());
    covered.extend([0, 0, 0, protocol]);
    covered.extend(&segment[transport..]);
    assert_eq!(plain_sum(&covered), 0xffff, "the transport checksum");
    if !shape.tcp {
        assert_eq!(word(segment, transport + 4), length);
        assert_ne!(word(segment, transport + 6), 0, "no checksum");
    }
    &segment[shape.payload_at()..]
}
