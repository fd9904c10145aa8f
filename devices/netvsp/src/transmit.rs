//! The frames of a message of the guest: from their places in it to the backend.

use synthvm_net::software::checksum::{finish, sum};
use synthvm_net::software::{TCP, complete_headers};
use synthvm_net::{Frame, Pieces, Queue, Segmentation as Split, SendError, VnetHeader, vlan};
use vm_memory::VolatileSlice;

use crate::counters::SharedStatistics;
use crate::message::GuestMessage;
use crate::protocol::limits::{HEADER_COPY, SHORT_HEADER_COPY};
use crate::protocol::nvsp::NvspStatus;
use crate::protocol::rndis::{
    ChecksumRequest, Offload, Segmentation, TransmitCursor, TransmitFrame, Transport,
};
use crate::protocol::{FrameHeaders, MacAddress};

/// Bytes of a frame that are copied where its headers must be read or completed: Ethernet with two
/// tags, IPv4 with options or IPv6 with some extension headers, TCP with options.
const HEAD: usize = 192;

/// Offset of the checksum in a TCP header, and in a UDP header.
const TCP_CHECKSUM: u16 = 16;
const UDP_CHECKSUM: u16 = 6;

/// The frames of a message that are not sent yet.
#[derive(Debug)]
pub(crate) struct Remaining {
    cursor: TransmitCursor,
    /// The frame that the backend did not take.
    frame: Option<TransmitFrame>,
    /// The status that completes the message once no frame is left.
    pub(crate) status: NvspStatus,
}

impl Remaining {
    /// Returns the frames of a message of `length` bytes, on a card whose frames have at most
    /// `max_frame` bytes with the Ethernet header.
    #[inline]
    pub(crate) fn new(length: u32, max_frame: u32) -> Self {
        let cursor = TransmitCursor::new(length, max_frame);
        Self { cursor, frame: None, status: NvspStatus::Success }
    }

    /// Sends the frames by `queue`. `pieces` is kept for its memory. Returns false if the backend
    /// is full before the last one: call again later.
    #[inline]
    pub(crate) fn send(
        &mut self,
        message: &GuestMessage<'_>,
        queue: &mut dyn Queue,
        pieces: &mut Pieces<'static>,
        statistics: &SharedStatistics,
    ) -> bool {
        while let Some((frame, memory, destination)) = self.next_frame(message, statistics) {
            let result = send(message, &frame, memory, queue, pieces);
            statistics.count_sent(destination, frame.length, result);
            match result {
                // A network may lose frames.
                Ok(()) | Err(SendError::LinkDown | SendError::Os(_)) => {}
                Err(SendError::Full) => {
                    self.frame = Some(frame);
                    return false;
                }
                // The guest learns of malformed ones.
                Err(SendError::Malformed | SendError::Length(_) | SendError::Unsupported) => {
                    self.status = NvspStatus::Failure;
                }
            }
        }
        true
    }

    /// Drops the frames. Malformed ones are reported all the same.
    #[cold]
    pub(crate) fn skip(&mut self, message: &GuestMessage<'_>, statistics: &SharedStatistics) {
        while let Some((frame, _, destination)) = self.next_frame(message, statistics) {
            statistics.count_sent(destination, frame.length, Err(SendError::LinkDown));
        }
    }

    /// Returns the next frame, its memory if that is one piece together with the header, and the
    /// address that it goes to.
    #[inline(always)]
    fn next_frame<'a>(
        &mut self,
        message: &GuestMessage<'a>,
        statistics: &SharedStatistics,
    ) -> Option<(TransmitFrame, Option<VolatileSlice<'a>>, MacAddress)> {
        if let Some(frame) = self.frame.take() {
            return Some((frame, None, destination(message, &frame)));
        }
        let start = self.cursor.next_header()?.start;
        let first = message.first_piece(start as usize);
        let mut header = [0; SHORT_HEADER_COPY as usize];
        let copied = first.as_ref().map_or(0, |first| first.copy_to(&mut header));
        match self.cursor.parse_first(&header[..copied]) {
            Some(frame) => {
                let (offset, length) = ((frame.offset - start) as usize, frame.length as usize);
                let memory = first.and_then(|first| first.subslice(offset, length).ok());
                // Most headers are so short that the address was copied with them.
                let copy = header[..copied].get(offset..).and_then(|bytes| bytes.first_chunk());
                let destination = match copy {
                    Some(address) if length >= address.len() => MacAddress(*address),
                    _ => destination(message, &frame),
                };
                Some((frame, memory, destination))
            }
            None => {
                let frame = self.next_frame_in_pieces(message, statistics)?;
                Some((frame, None, destination(message, &frame)))
            }
        }
    }

    /// Returns the next frame, wherever its header is.
    #[cold]
    fn next_frame_in_pieces(
        &mut self,
        message: &GuestMessage<'_>,
        statistics: &SharedStatistics,
    ) -> Option<TransmitFrame> {
        let bytes = self.cursor.next_header()?;
        let mut header = [0; HEADER_COPY as usize];
        let header = header.get_mut(..(bytes.end - bytes.start) as usize)?;
        let is_copied = message.copy_to(bytes.start as usize, header);
        let frame = is_copied.then(|| self.cursor.parse_next(header).ok()).flatten();
        if frame.is_none() {
            statistics.count_malformed();
            self.status = NvspStatus::Failure;
        }
        frame
    }
}

/// Returns the address that a frame goes to. Zeros for a frame that is shorter than an address: no
/// backend takes it.
#[inline(never)]
fn destination(message: &GuestMessage<'_>, frame: &TransmitFrame) -> MacAddress {
    let mut address = [0; 6];
    let length = address.len().min(frame.length as usize);
    let _ = message.copy_to(frame.offset as usize, &mut address[..length]);
    MacAddress(address)
}

/// Sends `frame` of `message` by `queue`. `pieces` is kept for its memory.
///
/// # Errors
/// [`SendError::Full`]: send it again later. All others: the frame is lost.
#[inline]
fn send(
    message: &GuestMessage<'_>,
    frame: &TransmitFrame,
    memory: Option<VolatileSlice<'_>>,
    queue: &mut dyn Queue,
    pieces: &mut Pieces<'static>,
) -> Result<(), SendError> {
    match (frame.offload, memory) {
        (Offload::None, Some(memory)) => {
            let mut list = std::mem::take(pieces).recycle();
            let result = match list.push(memory) {
                Ok(()) => queue.send(&Frame {
                    header: VnetHeader::default(),
                    tag: tag(frame),
                    pieces: &list,
                }),
                Err(_) => Err(SendError::Malformed),
            };
            *pieces = list.recycle();
            result
        }
        (Offload::None, None) => {
            send_pieces(message, frame, &mut [], VnetHeader::default(), queue, pieces)
        }
        _ => send_offload(message, frame, queue, pieces),
    }
}

/// Sends a frame with an offload request, whose headers have to be read.
fn send_offload(
    message: &GuestMessage<'_>,
    frame: &TransmitFrame,
    queue: &mut dyn Queue,
    pieces: &mut Pieces<'static>,
) -> Result<(), SendError> {
    let mut head = [0; HEAD];
    let head = &mut head[..HEAD.min(frame.length as usize)];
    if !message.copy_to(frame.offset as usize, head) {
        return Err(SendError::Malformed);
    }
    let (header, is_head_changed) = prepare(head, frame.length as usize, frame.offload)?;
    let head = if is_head_changed { head } else { &mut [] };
    send_pieces(message, frame, head, header, queue, pieces)
}

/// Sends a frame with `head` in place of its first bytes.
fn send_pieces(
    message: &GuestMessage<'_>,
    frame: &TransmitFrame,
    head: &mut [u8],
    header: VnetHeader,
    queue: &mut dyn Queue,
    pieces: &mut Pieces<'static>,
) -> Result<(), SendError> {
    let skip = head.len();
    let (offset, length) = (frame.offset as usize + skip, frame.length as usize - skip);
    let mut list = std::mem::take(pieces).recycle();
    let complete = list
        .push(VolatileSlice::from(head))
        .and_then(|()| message.add_to(offset, length, &mut list));
    let result = match complete {
        Ok(()) => queue.send(&Frame { header, tag: tag(frame), pieces: &list }),
        Err(_) => Err(SendError::Malformed),
    };
    *pieces = list.recycle();
    result
}

#[inline]
fn tag(frame: &TransmitFrame) -> Option<vlan::Tag> {
    frame.vlan.and_then(|vlan| vlan::Tag::from_bytes(&vlan.to_tag()))
}

/// Returns the backend's request for `offload`, and whether `head`, the first bytes of a frame of
/// `length` bytes, was changed for it.
fn prepare(
    head: &mut [u8],
    length: usize,
    offload: Offload,
) -> Result<(VnetHeader, bool), SendError> {
    match offload {
        Offload::None => Ok((VnetHeader::default(), false)),
        Offload::Checksum(request) => checksum(head, &request),
        Offload::Segment(request) => Ok((segment(head, length, &request)?, true)),
    }
}

fn checksum(head: &mut [u8], request: &ChecksumRequest) -> Result<(VnetHeader, bool), SendError> {
    let header = match request.transport {
        None => VnetHeader::default(),
        Some(transport) => {
            let start = request.locate(head).ok_or(SendError::Malformed)?;
            let offset = match transport {
                Transport::Tcp => TCP_CHECKSUM,
                Transport::Udp => UDP_CHECKSUM,
            };
            VnetHeader::checksum(start, offset)
        }
    };
    if request.ip_header {
        let headers = FrameHeaders::parse(head).ok_or(SendError::Malformed)?;
        fill_ipv4(head, &headers)?;
    }
    Ok((header, request.ip_header))
}

/// The guest leaves lengths and checksums to the host, and a kernel that splits needs some of them.
fn segment(
    head: &mut [u8],
    length: usize,
    request: &Segmentation,
) -> Result<VnetHeader, SendError> {
    let start = request.locate(head).ok_or(SendError::Malformed)?;
    let size = u16::try_from(request.segment_size).map_err(|_| SendError::Malformed)?;
    let headers = complete_headers(head, length).map_err(|_| SendError::Malformed)?;
    let kind = if headers.v6 { Split::Tcp6 } else { Split::Tcp4 };
    if headers.protocol != TCP || headers.transport != usize::from(start) {
        return Err(SendError::Malformed);
    }
    Ok(VnetHeader::checksum(start, TCP_CHECKSUM).split(kind, size, headers.payload as u16))
}

/// Writes the checksum of the IPv4 header.
fn fill_ipv4(head: &mut [u8], headers: &FrameHeaders) -> Result<(), SendError> {
    let ip = usize::from(headers.ip_offset);
    let header = head.get_mut(ip..usize::from(headers.transport_offset));
    let header = header.ok_or(SendError::Malformed)?;
    let field = 10..12;
    header[field.clone()].fill(0);
    let checksum = finish(sum(0, header));
    header[field].copy_from_slice(&checksum.to_be_bytes());
    Ok(())
}
