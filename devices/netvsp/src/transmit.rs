//! One frame of the guest: from its place in a message to a frame for the backend.

use synthvm_net::software::checksum::{finish, sum};
use synthvm_net::{Frame, Pieces, Queue, Segmentation as Split, SendError, VnetHeader, vlan};
use vm_memory::VolatileSlice;

use crate::message::GuestMessage;
use crate::protocol::FrameHeaders;
use crate::protocol::rndis::{
    ChecksumRequest, IpVersion, Offload, Segmentation, TransmitFrame, Transport,
};

/// Bytes of a frame that are copied where its headers must be read or completed: Ethernet with two
/// tags, IPv4 with options or IPv6 with some extension headers, TCP with options.
const HEAD: usize = 192;

/// Offset of the checksum in a TCP header, and in a UDP header.
const TCP_CHECKSUM: u16 = 16;
const UDP_CHECKSUM: u16 = 6;
const PROTOCOL_TCP: u64 = 6;

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
        fill_ipv4(head, &headers, None)?;
    }
    Ok((header, request.ip_header))
}

/// The guest leaves the lengths of IP and the sum of the pseudo-header to the host.
fn segment(
    head: &mut [u8],
    length: usize,
    request: &Segmentation,
) -> Result<VnetHeader, SendError> {
    let start = request.locate(head).ok_or(SendError::Malformed)?;
    let headers = FrameHeaders::parse(head).ok_or(SendError::Malformed)?;
    let size = u16::try_from(request.segment_size).map_err(|_| SendError::Malformed)?;
    let (ip, tcp) = (usize::from(headers.ip_offset), usize::from(start));
    let tcp_length = length.checked_sub(tcp).ok_or(SendError::Malformed)?;
    let (kind, addresses) = match request.ip_version {
        IpVersion::V4 => {
            let total = u16::try_from(length - ip).map_err(|_| SendError::Malformed)?;
            fill_ipv4(head, &headers, Some(total))?;
            (Split::Tcp4, ip + 12..ip + 20)
        }
        IpVersion::V6 => {
            let payload = length.checked_sub(ip + 40).and_then(|bytes| u16::try_from(bytes).ok());
            let payload = payload.ok_or(SendError::Malformed)?;
            put(head, ip + 4, payload)?;
            (Split::Tcp6, ip + 8..ip + 40)
        }
    };
    let addresses = head.get(addresses).ok_or(SendError::Malformed)?;
    let pseudo = sum(PROTOCOL_TCP + tcp_length as u64, addresses);
    // The field holds the sum itself, the checksum's complement.
    put(head, tcp + usize::from(TCP_CHECKSUM), !finish(pseudo))?;
    let data_offset = head.get(tcp + 12).ok_or(SendError::Malformed)? >> 4;
    let header_length = tcp + 4 * usize::from(data_offset);
    if data_offset < 5 || header_length > length {
        return Err(SendError::Malformed);
    }
    Ok(VnetHeader::checksum(start, TCP_CHECKSUM).split(kind, size, header_length as u16))
}

/// Writes the length, if it is given, and the checksum of the IPv4 header.
fn fill_ipv4(head: &mut [u8], headers: &FrameHeaders, total: Option<u16>) -> Result<(), SendError> {
    let ip = usize::from(headers.ip_offset);
    if let Some(total) = total {
        put(head, ip + 2, total)?;
    }
    put(head, ip + 10, 0)?;
    let header = head.get(ip..usize::from(headers.transport_offset)).ok_or(SendError::Malformed)?;
    put(head, ip + 10, finish(sum(0, header)))
}

fn put(head: &mut [u8], at: usize, word: u16) -> Result<(), SendError> {
    let field = head.get_mut(at..at + 2).ok_or(SendError::Malformed)?;
    field.copy_from_slice(&word.to_be_bytes());
    Ok(())
}
