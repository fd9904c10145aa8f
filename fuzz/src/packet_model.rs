//! Packets read in a naive way: from a flat copy of their bytes, field by field.

use vmbus_gpadl::GuestBuffer;
use vmbus_protocol::limits::{MAX_GPA_DIRECT_BYTES, MAX_GPA_DIRECT_RANGES};
use vmbus_ring::{Packet, PacketError, PacketKind, RingError, TransferRange};

use crate::input::Input;
use crate::page_list::{Cap, Memory, Parsed, check, parse};

/// Words of a range list that the ring reads at a time.
const CHUNK_WORDS: usize = 64;

/// A packet's descriptor.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: PacketKind,
    completion_requested: bool,
    transaction_id: u64,
    /// Bytes before the payload.
    pub(crate) data_offset: usize,
    /// Bytes without the trailer.
    pub(crate) length: usize,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

impl Frame {
    /// Parses the packet at the start of `bytes`. The ring contains `available` bytes from there
    /// on.
    pub(crate) fn parse(bytes: &[u8], available: u32) -> Result<Self, RingError> {
        if available < 16 {
            return Err(RingError::NoDescriptor { available });
        }
        let kind = u16_at(bytes, 0);
        let (data_offset, length) =
            (u32::from(u16_at(bytes, 2)) * 8, u32::from(u16_at(bytes, 4)) * 8);
        if length < 16 {
            return Err(RingError::ShortPacket { length });
        }
        if !(16..=length).contains(&data_offset) {
            return Err(RingError::DataOffset { data_offset, length });
        }
        if length + 8 > available {
            return Err(RingError::LongPacket { length, available });
        }
        let kind = match kind {
            6 => PacketKind::InBand,
            7 => PacketKind::TransferPages,
            9 => PacketKind::GpaDirect,
            11 => PacketKind::Completion,
            value => return Err(RingError::PacketType { value }),
        };
        Ok(Self {
            kind,
            completion_requested: u16_at(bytes, 6) & 1 != 0,
            transaction_id: u64_at(bytes, 8),
            data_offset: data_offset as usize,
            length: length as usize,
        })
    }

    pub(crate) fn check(&self, packet: &Packet<'_>) {
        assert_eq!(
            (
                packet.kind(),
                packet.completion_requested(),
                packet.transaction_id(),
                packet.payload_len()
            ),
            (
                self.kind,
                self.completion_requested,
                self.transaction_id,
                self.length - self.data_offset
            )
        );
    }
}

/// Checks that the external data of `packet` matches `bytes`, its present bytes.
pub(crate) fn check_external(
    memory: &mut Memory,
    packet: &Packet<'_>,
    frame: &Frame,
    bytes: &[u8],
    buffer: &mut GuestBuffer,
    queries: &mut Input<'_>,
) {
    let outcome = packet.gpa_direct(buffer);
    match (outcome, gpa_direct(memory, frame, bytes)) {
        (Ok(()), Ok(Parsed::Complete(list))) => check(memory, buffer, &list, queries),
        (Err(PacketError::Range(error)), Ok(Parsed::Refused(expected))) => {
            assert_eq!(error, expected);
            assert!(buffer.is_empty() && buffer.pages() == 0);
        }
        (Err(PacketError::TooManyBytes { limit: MAX_GPA_DIRECT_BYTES }), Ok(Parsed::OverCap)) => {
            assert!(buffer.is_empty());
        }
        (Err(error), Err(expected)) => {
            assert_eq!(error, expected);
            assert!(buffer.is_empty());
        }
        (outcome, expected) => panic!("{outcome:?} instead of {expected:?}"),
    }
    let mut ranges = vec![TransferRange::default()];
    let outcome = packet.transfer_pages(&mut ranges).map(|set| (set, &ranges[..]));
    let expected = transfer_pages(frame, bytes);
    match (outcome, &expected) {
        (Ok((set, ranges)), Ok((expected_set, expected))) => {
            assert_eq!((set, ranges), (*expected_set, &expected[..]))
        }
        (Err(error), Err(expected)) => assert_eq!((error, ranges.len()), (*expected, 0)),
        (outcome, expected) => panic!("{outcome:?} instead of {expected:?}"),
    }
}

/// Reads the word before the ranges.
fn range_head(frame: &Frame, bytes: &[u8], limit: u32) -> Result<(u32, u32), PacketError> {
    if frame.data_offset < 24 {
        return Err(PacketError::ShortHeader { header: frame.data_offset as u32 });
    }
    let word = u64_at(bytes, 16);
    let (head, count) = (word as u32, (word >> 32) as u32);
    if count == 0 || count > limit {
        return Err(PacketError::RangeCount { count, limit });
    }
    Ok((head, count))
}

fn gpa_direct(memory: &Memory, frame: &Frame, bytes: &[u8]) -> Result<Parsed, PacketError> {
    if frame.kind != PacketKind::GpaDirect {
        return Err(PacketError::NoExternalData);
    }
    let (_, count) = range_head(frame, bytes, MAX_GPA_DIRECT_RANGES)?;
    let words: Vec<u64> = (24..frame.data_offset).step_by(8).map(|at| u64_at(bytes, at)).collect();
    let cap = Cap { bytes: MAX_GPA_DIRECT_BYTES, chunk_words: CHUNK_WORDS };
    Ok(parse(memory, count, words.len() * 8, &words, Some(&cap)))
}

fn transfer_pages(frame: &Frame, bytes: &[u8]) -> Result<(u16, Vec<TransferRange>), PacketError> {
    if frame.kind != PacketKind::TransferPages {
        return Err(PacketError::NoExternalData);
    }
    let (head, count) = range_head(frame, bytes, u32::MAX)?;
    if count as usize > (frame.data_offset - 24) / 8 {
        return Err(PacketError::RangeList);
    }
    let ranges = (0..count as usize).map(|index| {
        let word = u64_at(bytes, 24 + index * 8);
        TransferRange { byte_count: word as u32, byte_offset: (word >> 32) as u32 }
    });
    Ok((head as u16, ranges.collect()))
}
