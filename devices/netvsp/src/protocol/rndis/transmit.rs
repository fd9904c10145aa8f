//! Frames of the guest: RNDIS packets, several in a message (netvsc section 4).

use std::ops::Range;

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::super::limits::{
    ETHERNET_HEADER, HEADER_COPY, MAX_PACKETS_PER_MESSAGE, MAX_SEGMENTED_FRAME,
    PACKET_ALIGNMENT_SHIFT, VLAN_TAG,
};
use super::error::TransmitError;
use super::offload::Offload;
use super::packet_info::PacketInfo;
use super::vlan::Vlan;
use super::{OFFSET_BASE, kind};

/// A position in a message of the guest that carries up to eight RNDIS packets.
///
/// The message is a stream of bytes: a part of the send buffer, then the packet's ranges. The
/// caller copies the bytes of [`next_header`](Self::next_header) and passes them to
/// [`parse_next`](Self::parse_next), until no header is left. After an error no header is left, and
/// the message must be completed with a failure.
#[derive(Clone, Debug)]
pub struct TransmitCursor {
    offset: u32,
    remaining: u32,
    packets: u32,
    max_frame: u32,
    is_failed: bool,
}

/// One frame to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransmitFrame {
    /// Offset of the frame in the message, in bytes.
    pub offset: u32,
    /// Bytes of the frame, with its Ethernet header. The message holds all of them.
    pub length: u32,
    /// The work that is left to the host.
    pub offload: Offload,
    /// The tag to insert into the frame.
    pub vlan: Option<Vlan>,
}

impl TransmitCursor {
    /// Begins a message of `length` bytes on a card whose frames have at most `max_frame` bytes,
    /// with the Ethernet header.
    pub fn new(length: u32, max_frame: u32) -> Self {
        Self { offset: 0, remaining: length, packets: 0, max_frame, is_failed: false }
    }

    /// Returns the range of bytes of the message to copy for the next packet, at most 256. `None`:
    /// no packet is left. The first packet is always expected.
    #[inline]
    pub fn next_header(&self) -> Option<Range<u32>> {
        // Less than one alignment unit after a packet is padding.
        let is_finished = self.packets > 0 && self.remaining < 1 << PACKET_ALIGNMENT_SHIFT;
        if is_finished || self.is_failed {
            return None;
        }
        Some(self.offset..self.offset.saturating_add(self.remaining.min(HEADER_COPY)))
    }

    /// Parses the next packet and moves to the one after it. `header`: a copy of the bytes of
    /// [`next_header`](Self::next_header).
    ///
    /// # Errors
    /// The first defect of the packet. No header is left then.
    pub fn parse_next(&mut self, header: &[u8]) -> Result<TransmitFrame, TransmitError> {
        let result = self.parse(header);
        match result {
            Ok((_, length)) => self.advance(length),
            Err(_) => self.is_failed = true,
        }
        result.map(|(frame, _)| frame)
    }

    /// Parses the next packet as [`parse_next`](Self::parse_next) does, but from fewer bytes, which
    /// suffice if they hold the header and the per-packet information. `None`: nothing has changed,
    /// and [`parse_next`](Self::parse_next) decides.
    #[inline]
    pub fn parse_first(&mut self, header: &[u8]) -> Option<TransmitFrame> {
        let (frame, length) = self.parse(header).ok()?;
        self.advance(length);
        Some(frame)
    }

    #[inline]
    fn advance(&mut self, length: u32) {
        self.offset += length;
        self.remaining -= length;
        self.packets += 1;
    }

    /// Returns the frame and the length of the packet, which is at most `self.remaining`.
    #[inline(always)]
    fn parse(&self, header: &[u8]) -> Result<(TransmitFrame, u32), TransmitError> {
        let remaining = self.remaining;
        if self.packets == MAX_PACKETS_PER_MESSAGE {
            return Err(TransmitError::TooManyPackets);
        }
        let copied = &header[..header.len().min(remaining as usize)];
        let (packet, _) =
            PacketHeader::ref_from_prefix(copied).map_err(|_| header_error(copied, remaining))?;
        if packet.kind.get() != kind::PACKET {
            return Err(TransmitError::NotAPacket(packet.kind.get()));
        }
        let length = packet.length.get();
        if length < PacketHeader::LENGTH || length > remaining {
            return Err(TransmitError::Length { length, remaining });
        }
        if packet.out_of_band.iter().any(|word| word.get() != 0) {
            return Err(TransmitError::OutOfBand);
        }
        let data_length = packet.data_length.get();
        let offset = packet
            .data_offset
            .get()
            .checked_add(OFFSET_BASE)
            .filter(|start| start.checked_add(data_length).is_some_and(|end| end <= length))
            .ok_or(TransmitError::FrameRange)?;
        let info = PacketInfo::parse(packet.info_area(copied, length)?)?;
        let offload = Offload::from_info(&info, data_length)?;
        let max_length = match offload {
            Offload::Segment(_) => MAX_SEGMENTED_FRAME,
            Offload::None | Offload::Checksum(_) => self.max_frame.saturating_add(VLAN_TAG),
        };
        if !(ETHERNET_HEADER..=max_length).contains(&data_length) {
            return Err(TransmitError::FrameLength(data_length));
        }
        let vlan = info.vlan.map(Vlan::from_word);
        let frame =
            TransmitFrame { offset: self.offset + offset, length: data_length, offload, vlan };
        Ok((frame, length))
    }
}

/// The header of an RNDIS packet.
#[derive(Clone, Copy, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct PacketHeader {
    kind: U32,
    length: U32,
    /// From byte 8 of the packet.
    data_offset: U32,
    data_length: U32,
    /// Offset, length and number of out-of-band items: all 0.
    out_of_band: [U32; 3],
    /// From byte 8 of the packet.
    info_offset: U32,
    info_length: U32,
    /// Ignored.
    handle_and_reserved: [U32; 2],
}

impl PacketHeader {
    const LENGTH: u32 = size_of::<Self>() as u32;

    /// Returns the per-packet information of a packet of `length` bytes, of which `copied` begins
    /// with a part.
    #[inline]
    fn info_area<'a>(&self, copied: &'a [u8], length: u32) -> Result<&'a [u8], TransmitError> {
        let info_length = self.info_length.get();
        if info_length == 0 {
            return Ok(&[]);
        }
        let area = self.info_offset.get().checked_add(OFFSET_BASE).and_then(|start| {
            let end = start.checked_add(info_length)?;
            let is_within = start >= Self::LENGTH && end <= length;
            copied.get(start as usize..end as usize).filter(|_| is_within)
        });
        area.ok_or(TransmitError::PacketInfo)
    }
}

const _: () = assert!(size_of::<PacketHeader>() == 44);

/// Names the defect of a message that ends within its header.
#[cold]
fn header_error(copied: &[u8], remaining: u32) -> TransmitError {
    match U32::read_from_prefix(copied) {
        Ok((kind, _)) if kind.get() != kind::PACKET => TransmitError::NotAPacket(kind.get()),
        _ => TransmitError::TooShort(remaining),
    }
}
