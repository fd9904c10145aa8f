//! Where the headers of a frame are.

use super::Malformed;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Tags of IEEE 802.1Q and 802.1ad.
const TAGS: [u16; 2] = [0x8100, 0x88a8];

/// The protocol number of TCP.
pub const TCP: u8 = 6;
/// The protocol number of UDP.
pub const UDP: u8 = 17;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION: u8 = 60;

/// Most extension headers of an IPv6 packet that are followed.
const MAX_EXTENSIONS: usize = 8;

/// The headers of a TCP or UDP frame. Offsets count from the first byte of the frame, and all
/// headers are within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Offset of the IP header.
    pub network: usize,
    /// The IP header is of version 6.
    pub v6: bool,
    /// Offset of the transport header.
    pub transport: usize,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    /// Offset of the first byte after the transport header.
    pub payload: usize,
}

impl Headers {
    /// Finds the headers of a frame, behind up to two tags. Length fields of IP and UDP are not
    /// used, as a frame that is to be split need not have them.
    ///
    /// # Errors
    /// The frame has neither TCP nor UDP, is a fragment, or ends too early.
    pub fn find(frame: &[u8]) -> Result<Self, Malformed> {
        let (network, ethertype) = network(frame)?;
        let (v6, transport, protocol) = match ethertype {
            ETHERTYPE_IPV4 => ipv4(frame, network)?,
            ETHERTYPE_IPV6 => ipv6(frame, network)?,
            _ => return Err(Malformed),
        };
        let length = match protocol {
            TCP => usize::from(byte(frame, transport + 12)? >> 4) * 4,
            UDP => 8,
            _ => return Err(Malformed),
        };
        let payload = transport + length;
        let complete = length >= 8 && (protocol == UDP || length >= 20);
        if !complete || payload > frame.len() {
            return Err(Malformed);
        }
        Ok(Self { network, v6, transport, protocol, payload })
    }
}

fn network(frame: &[u8]) -> Result<(usize, u16), Malformed> {
    let mut at = 12;
    for _ in 0..3 {
        let ethertype = word(frame, at)?;
        if !TAGS.contains(&ethertype) {
            return Ok((at + 2, ethertype));
        }
        at += 4;
    }
    Err(Malformed)
}

fn ipv4(frame: &[u8], at: usize) -> Result<(bool, usize, u8), Malformed> {
    let first = byte(frame, at)?;
    let length = usize::from(first & 0xf) * 4;
    let fragment = word(frame, at + 6)? & 0x3fff != 0;
    if first >> 4 != 4 || length < 20 || fragment {
        return Err(Malformed);
    }
    Ok((false, at + length, byte(frame, at + 9)?))
}

fn ipv6(frame: &[u8], at: usize) -> Result<(bool, usize, u8), Malformed> {
    if byte(frame, at)? >> 4 != 6 {
        return Err(Malformed);
    }
    let mut next = byte(frame, at + 6)?;
    let mut at = at + 40;
    for _ in 0..MAX_EXTENSIONS {
        match next {
            HOP_BY_HOP | ROUTING | DESTINATION => {
                next = byte(frame, at)?;
                at += usize::from(byte(frame, at + 1)?) * 8 + 8;
            }
            protocol => return Ok((true, at, protocol)),
        }
    }
    Err(Malformed)
}

fn byte(frame: &[u8], at: usize) -> Result<u8, Malformed> {
    frame.get(at).copied().ok_or(Malformed)
}

fn word(frame: &[u8], at: usize) -> Result<u16, Malformed> {
    Ok(u16::from_be_bytes([byte(frame, at)?, byte(frame, at + 1)?]))
}
