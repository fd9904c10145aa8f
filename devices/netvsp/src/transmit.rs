//! One frame of the guest: from its place in a message to a frame for the backend.

use synthvm_net::software::checksum::{finish, sum};
use synthvm_net::software::{TCP, complete_headers};
use synthvm_net::{Frame, Pieces, Queue, Segmentation as Split, SendError, VnetHeader, vlan};
use vm_memory::VolatileSlice;

use crate::message::GuestMessage;
use crate::protocol::FrameHeaders;
use crate::protocol::rndis::{ChecksumRequest, Offload, Segmentation, TransmitFrame, Transport};

/// Bytes of a frame that are copied where its headers must be read or completed: Ethernet with two
/// tags, IPv4 with options or IPv6 with some extension headers, TCP with options.
const HEAD: usize = 192;

/// Offset of the checksum in a TCP header, and in a UDP header.
const TCP_CHECKSUM: u16 = 16;
const UDP_CHECKSUM: u16 = 6;

/// Sends `frame` of `message` by `queue`. `pieces` is kept for its memory.
///
/// # Errors
/// [`SendError::Full`]: send it again later. All others: the frame is lost.
pub(crate) fn send(
    message: &GuestMessage<'_>,
    frame: &TransmitFrame,
    queue: &mut dyn Queue,
    pieces: &mut Pieces<'static>,
) -> Result<(), SendError> {
    let (offset, length) = (frame.offset as usize, frame.length as usize);
    let mut head = [0; HEAD];
    let copied = match frame.offload {
        Offload::None => 0,
        Offload::Checksum(_) | Offload::Segment(_) => length.min(HEAD),
    };
    if !message.copy_to(offset, &mut head[..copied]) {
        return Err(SendError::Malformed);
    }
    let (header, is_head_changed) = prepare(&mut head[..copied], length, frame.offload)?;
    let mut list = std::mem::take(pieces).recycle();
    let skip = if is_head_changed { copied } else { 0 };
    let complete = list
        .push(VolatileSlice::from(&mut head[..skip]))
        .and_then(|()| message.add_to(offset + skip, length - skip, &mut list));
    let tag = frame.vlan.and_then(|vlan| vlan::Tag::from_bytes(&vlan.to_tag()));
    let result = match complete {
        Ok(()) => queue.send(&Frame { header, tag, pieces: &list }),
        Err(_) => Err(SendError::Malformed),
    };
    *pieces = list.recycle();
    result
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
