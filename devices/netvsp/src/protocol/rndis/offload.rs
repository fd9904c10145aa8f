//! Offload requests beside a frame of the guest (netvsc section 4.1).

use super::super::frame_headers::{FrameHeaders, Protocol};
use super::super::limits::ETHERNET_HEADER;
use super::error::TransmitError;
use super::packet_info::PacketInfo;

/// The work that the guest leaves to the host for one frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offload {
    /// The frame is complete.
    #[default]
    None,
    /// Checksums are missing.
    Checksum(ChecksumRequest),
    /// The frame is a TCP segment that must be divided. Its lengths and checksums are missing.
    Segment(Segmentation),
}

/// Checksums to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChecksumRequest {
    /// Version of the IP header.
    pub ip_version: IpVersion,
    /// Protocol whose checksum is missing; its field holds the sum of the pseudo-header.
    pub transport: Option<Transport>,
    /// The checksum of the IPv4 header is missing.
    pub ip_header: bool,
    /// Offset of the transport header in the frame, in bytes, 34.. (IPv4) or 54.. (IPv6) and less
    /// than the frame's length. `None`: it follows from the frame's headers.
    pub transport_offset: Option<u16>,
}

/// Segmentation of a TCP segment (large send offload).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// Version of the IP header.
    pub ip_version: IpVersion,
    /// Bytes of TCP payload in each segment, 1..2^20.
    pub segment_size: u32,
    /// Offset of the TCP header in the frame, as in [`ChecksumRequest::transport_offset`].
    pub transport_offset: Option<u16>,
}

impl ChecksumRequest {
    /// Returns the offset of the transport header in a frame with these first bytes. `None`: the
    /// frame has no header of the requested protocol there, or the request is for no protocol.
    pub fn locate(&self, frame: &[u8]) -> Option<u16> {
        locate(self.ip_version, self.transport?, self.transport_offset, frame)
    }
}

impl Segmentation {
    /// Returns the offset of the TCP header in a frame with these first bytes. `None`: the frame
    /// has no TCP header there, and the packet must be completed with a failure.
    pub fn locate(&self, frame: &[u8]) -> Option<u16> {
        locate(self.ip_version, Transport::Tcp, self.transport_offset, frame)
    }
}

/// A version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Offload {
    /// Interprets the words beside a frame of `length` bytes. Segmentation includes checksums, so
    /// it takes precedence.
    ///
    /// # Errors
    /// A request is contradictory, or its header offset is outside of the frame.
    #[inline]
    pub(super) fn from_info(info: &PacketInfo, length: u32) -> Result<Self, TransmitError> {
        match (info.large_send, info.checksum) {
            (Some(word), _) => segmentation(word, length).map(Self::Segment),
            (None, Some(word)) => Ok(checksum(word, length)?.map_or(Self::None, Self::Checksum)),
            (None, None) => Ok(Self::None),
        }
    }
}

fn segmentation(word: u32, length: u32) -> Result<Segmentation, TransmitError> {
    const IS_VERSION_2: u32 = 1 << 30;
    const IS_IPV6: u32 = 1 << 31;
    // Version 1 of the request knows IPv4 only.
    let is_ipv6 = word & IS_VERSION_2 != 0 && word & IS_IPV6 != 0;
    let ip_version = if is_ipv6 { IpVersion::V6 } else { IpVersion::V4 };
    let segment_size = word & 0xF_FFFF;
    if segment_size == 0 {
        return Err(TransmitError::SegmentSize);
    }
    let transport_offset = transport_offset((word >> 20) & 0x3FF, ip_version, length)?;
    Ok(Segmentation { ip_version, segment_size, transport_offset })
}

fn checksum(word: u32, length: u32) -> Result<Option<ChecksumRequest>, TransmitError> {
    let bit = |number: u32| word & (1 << number) != 0;
    let (tcp, udp, ip_header) = (bit(2), bit(3), bit(4));
    if !tcp && !udp && !ip_header {
        return Ok(None);
    }
    let ip_version = match (bit(0), bit(1)) {
        (true, false) => IpVersion::V4,
        (false, true) => IpVersion::V6,
        _ => return Err(TransmitError::Checksum),
    };
    let transport = match (tcp, udp) {
        (true, true) => return Err(TransmitError::Checksum),
        (true, false) => Some(Transport::Tcp),
        (false, true) => Some(Transport::Udp),
        (false, false) => None,
    };
    let transport_offset = match transport {
        Some(_) => transport_offset((word >> 16) & 0x3FF, ip_version, length)?,
        None => None,
    };
    let ip_header = ip_header && ip_version == IpVersion::V4;
    let request = ChecksumRequest { ip_version, transport, ip_header, transport_offset };
    Ok((transport.is_some() || ip_header).then_some(request))
}

/// Compares a request with the frame's headers. Behind extension headers of IPv6, the offset of the
/// request counts.
fn locate(
    ip_version: IpVersion,
    transport: Transport,
    requested: Option<u16>,
    frame: &[u8],
) -> Option<u16> {
    let headers = FrameHeaders::parse(frame).filter(|headers| headers.ip_version == ip_version)?;
    let found = headers.transport_offset;
    match (headers.protocol, transport) {
        (Protocol::Tcp, Transport::Tcp) | (Protocol::Udp, Transport::Udp) => {
            (requested.unwrap_or(found) == found).then_some(found)
        }
        (Protocol::Other, _) if ip_version == IpVersion::V6 => {
            requested.filter(|offset| *offset > found)
        }
        _ => None,
    }
}

/// Checks the offset of a transport header; 0 means that the guest leaves it out.
fn transport_offset(
    offset: u32,
    ip_version: IpVersion,
    length: u32,
) -> Result<Option<u16>, TransmitError> {
    let ip_header = match ip_version {
        IpVersion::V4 => 20,
        IpVersion::V6 => 40,
    };
    if offset == 0 {
        return Ok(None);
    }
    if offset < ETHERNET_HEADER + ip_header || offset >= length {
        return Err(TransmitError::TransportOffset(offset));
    }
    Ok(u16::try_from(offset).ok())
}
