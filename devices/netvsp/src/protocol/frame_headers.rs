//! The headers of a frame, as far as hashes and checksums need them.

use super::rndis::IpVersion;

/// Offsets and protocols of the headers of a frame that carries IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeaders {
    /// Version of the IP header.
    pub ip_version: IpVersion,
    /// Offset of the IP header in the frame, in bytes.
    pub ip_offset: u16,
    /// Offset of the header after the IP header, in bytes.
    pub transport_offset: u16,
    /// The protocol of that header.
    pub protocol: Protocol,
}

/// The protocol after the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// Another protocol, an IPv6 extension header, or a fragment.
    Other,
}

impl FrameHeaders {
    /// Parses the first bytes of a frame, which may have up to two VLAN tags. `None`: no IP, or
    /// the bytes end within the IP header.
    #[inline]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let mut type_offset = 12;
        let mut ether_type = u16_at(frame, type_offset)?;
        for _ in 0..2 {
            if !matches!(ether_type, ETHER_TYPE_VLAN | ETHER_TYPE_SERVICE_VLAN) {
                break;
            }
            type_offset += 4;
            ether_type = u16_at(frame, type_offset)?;
        }
        let ip_offset = type_offset + 2;
        let ip = frame.get(ip_offset..)?;
        let (ip_version, length, protocol) = match ether_type {
            ETHER_TYPE_IPV4 => ipv4(ip)?,
            ETHER_TYPE_IPV6 => ipv6(ip)?,
            _ => return None,
        };
        let [ip_offset, transport_offset] = [ip_offset, ip_offset + length].map(|at| at as u16);
        Some(Self { ip_version, ip_offset, transport_offset, protocol })
    }
}

fn ipv4(ip: &[u8]) -> Option<(IpVersion, usize, Protocol)> {
    const FRAGMENT: u16 = 0x3FFF;
    let header: &[u8; 20] = ip.first_chunk()?;
    let length = usize::from(header[0] & 15) * 4;
    if header[0] >> 4 != 4 || length < 20 {
        return None;
    }
    let is_fragment = u16_at(ip, 6)? & FRAGMENT != 0;
    let protocol = if is_fragment { Protocol::Other } else { protocol(header[9]) };
    Some((IpVersion::V4, length, protocol))
}

fn ipv6(ip: &[u8]) -> Option<(IpVersion, usize, Protocol)> {
    let header: &[u8; 40] = ip.first_chunk()?;
    (header[0] >> 4 == 6).then_some((IpVersion::V6, 40, protocol(header[6])))
}

fn protocol(number: u8) -> Protocol {
    match number {
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        _ => Protocol::Other,
    }
}

/// Returns the number in network byte order at `offset`.
fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

const ETHER_TYPE_IPV4: u16 = 0x0800;
const ETHER_TYPE_IPV6: u16 = 0x86DD;
const ETHER_TYPE_VLAN: u16 = 0x8100;
const ETHER_TYPE_SERVICE_VLAN: u16 = 0x88A8;
