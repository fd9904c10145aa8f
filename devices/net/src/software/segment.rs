//! TCP and UDP segmentation.

use super::checksum::{finish, nonzero, sum};
use super::headers::{Headers, TCP, UDP};
use super::{Malformed, checksum};
use crate::{Segmentation, VnetHeader};

/// The most segments of a frame: 64 KiB in the smallest segments that Linux makes (48 bytes) have
/// 1,366.
pub const MAX_SEGMENTS: usize = 2048;

/// The TCP flags FIN and PSH, which the last segment has.
const LAST_ONLY: u8 = 0x01 | 0x08;
/// The TCP flag CWR, which the first segment has.
const FIRST_ONLY: u8 = 0x80;

/// How a frame becomes frames that need no offload.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    kind: Kind,
    count: usize,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// As it is.
    Whole,
    /// With a checksum filled in.
    Checksum { start: usize, offset: usize },
    /// Split.
    Split { headers: Headers, size: usize },
}

impl Plan {
    /// Returns the plan for a frame, whose bytes include its tags, and its offload request.
    ///
    /// # Errors
    /// The request does not fit the frame, or asks for more than [`MAX_SEGMENTS`].
    pub fn new(frame: &[u8], request: &VnetHeader) -> Result<Self, Malformed> {
        if !request.fits(frame.len()) {
            return Err(Malformed);
        }
        let (start, offset) = (request.checksum_start.into(), request.checksum_offset.into());
        let Some(kind) = request.segmentation().map_err(|_| Malformed)? else {
            let checksum = Kind::Checksum { start, offset };
            let kind = if request.needs_checksum() { checksum } else { Kind::Whole };
            return Ok(Self { kind, count: 1 });
        };
        let headers = Headers::find(frame)?;
        let expected = match (headers.v6, headers.protocol) {
            (false, TCP) => Segmentation::Tcp4,
            (true, TCP) => Segmentation::Tcp6,
            (_, UDP) => Segmentation::Udp,
            _ => return Err(Malformed),
        };
        if kind != expected || headers.transport != start {
            return Err(Malformed);
        }
        let size = usize::from(request.gso_size);
        let count = (frame.len() - headers.payload).div_ceil(size).max(1);
        if count > MAX_SEGMENTS {
            return Err(Malformed);
        }
        Ok(Self { kind: Kind::Split { headers, size }, count })
    }

    /// Returns the number of frames; at least one.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Writes frame `index` of them to `out`, which it empties before. `frame` is the one that the
    /// plan was made for.
    ///
    /// # Errors
    /// There is no such frame, or a length does not fit its field.
    pub fn write(&self, frame: &[u8], index: usize, out: &mut Vec<u8>) -> Result<(), Malformed> {
        out.clear();
        if index >= self.count {
            return Err(Malformed);
        }
        match self.kind {
            Kind::Whole => out.extend_from_slice(frame),
            Kind::Checksum { start, offset } => {
                out.extend_from_slice(frame);
                checksum::fill(out, start, offset)?;
            }
            Kind::Split { headers, size } => {
                let payload = frame.get(headers.payload..).ok_or(Malformed)?;
                let start = index * size;
                let end = payload.len().min(start.saturating_add(size));
                out.extend_from_slice(&frame[..headers.payload]);
                out.extend_from_slice(payload.get(start..end).ok_or(Malformed)?);
                let last = index + 1 == self.count;
                write_transport(out, &headers, start, index == 0, last)?;
                write_network(out, &headers, index)?;
            }
        }
        Ok(())
    }
}

/// Completes the IP header of a segment.
fn write_network(out: &mut [u8], headers: &Headers, index: usize) -> Result<(), Malformed> {
    let packet = &mut out[headers.network..];
    if headers.v6 {
        let length = u16::try_from(packet.len() - 40).map_err(|_| Malformed)?;
        put(packet, 4, length);
        return Ok(());
    }
    let length = u16::try_from(packet.len()).map_err(|_| Malformed)?;
    let id = u16::from_be_bytes([packet[4], packet[5]]);
    put(packet, 2, length);
    put(packet, 4, id.wrapping_add(index as u16));
    put(packet, 10, 0);
    let checksum = finish(sum(0, &packet[..headers.transport - headers.network]));
    put(packet, 10, checksum);
    Ok(())
}

/// Completes the TCP or UDP header of a segment that begins at byte `start` of the payload.
fn write_transport(
    out: &mut [u8],
    headers: &Headers,
    start: usize,
    first: bool,
    last: bool,
) -> Result<(), Malformed> {
    let (before, segment) = out.split_at_mut(headers.transport);
    let length = segment.len();
    let checksum_at = if headers.protocol == TCP {
        let sequence = u32::from_be_bytes([segment[4], segment[5], segment[6], segment[7]]);
        let sequence = sequence.wrapping_add(start as u32);
        segment[4..8].copy_from_slice(&sequence.to_be_bytes());
        if !last {
            segment[13] &= !LAST_ONLY;
        }
        if !first {
            segment[13] &= !FIRST_ONLY;
        }
        16
    } else {
        put(segment, 4, u16::try_from(length).map_err(|_| Malformed)?);
        6
    };
    put(segment, checksum_at, 0);
    let addresses = if headers.v6 { 8..40 } else { 12..20 };
    let pseudo = length as u64 + u64::from(headers.protocol);
    let total = sum(sum(pseudo, &before[headers.network..][addresses]), segment);
    let checksum = finish(total);
    put(segment, checksum_at, if headers.protocol == UDP { nonzero(checksum) } else { checksum });
    Ok(())
}

/// Writes a big-endian word; the field is in the headers that were found.
fn put(bytes: &mut [u8], at: usize, word: u16) {
    bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
}
