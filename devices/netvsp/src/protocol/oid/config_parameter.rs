//! SET of GEN_RNDIS_CONFIG_PARAMETER: named parameters of the driver (netvsc section 7.6).

use super::super::MacAddress;
use super::super::bytes::{slice_at, u32_at};
use super::super::rndis::RndisStatus;
use super::offloads::{Directions, Offloads};

/// A parameter that the host knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConfigParameter {
    /// The card's address.
    Address(MacAddress),
    /// An offload.
    Offload(OffloadKeyword, Directions),
    /// Any other: ignored.
    Unknown,
}

/// An offload by its keyword.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OffloadKeyword {
    Ipv4Checksum,
    Tcp4Checksum,
    Tcp6Checksum,
    Udp4Checksum,
    Udp6Checksum,
    Segment4,
    Segment6,
}

impl ConfigParameter {
    /// Parses a parameter.
    ///
    /// # Errors
    /// [`RndisStatus::InvalidData`]: name or value is longer than 255 bytes, has an odd length, is
    /// outside of `data`, or the value of a known name is malformed.
    pub(super) fn parse(data: &[u8]) -> Result<Self, RndisStatus> {
        Self::parse_fields(data).ok_or(RndisStatus::InvalidData)
    }

    fn parse_fields(data: &[u8]) -> Option<Self> {
        let word = |offset| u32_at(data, offset);
        let field =
            |offset, length| slice_at(data, offset, length).filter(|_| length <= MAX_LENGTH);
        let name = field(word(0)?, word(4)?)?;
        let kind = word(8)?;
        let value = field(word(12)?, word(16)?)?;
        if !name.len().is_multiple_of(2) {
            return None;
        }
        if is_name(name, "NetworkAddress") {
            return Some(Self::Address(address(kind, value)?));
        }
        let keyword = KEYWORDS.iter().find(|(keyword, _)| is_name(name, keyword));
        match keyword {
            Some((_, keyword)) => Some(Self::Offload(*keyword, directions(kind, value)?)),
            None => Some(Self::Unknown),
        }
    }
}

impl OffloadKeyword {
    /// Applies a value. Segmentation has only one direction.
    pub(super) fn apply(self, directions: Directions, mut enabled: Offloads) -> Offloads {
        match self {
            Self::Ipv4Checksum => enabled.ipv4 = directions,
            Self::Tcp4Checksum => enabled.tcp4 = directions,
            Self::Tcp6Checksum => enabled.tcp6 = directions,
            Self::Udp4Checksum => enabled.udp4 = directions,
            Self::Udp6Checksum => enabled.udp6 = directions,
            Self::Segment4 => enabled.segment4 = directions.transmit,
            Self::Segment6 => enabled.segment6 = directions.transmit,
        }
        enabled
    }
}

/// Reads an address of 12 hexadecimal digits.
fn address(kind: u32, value: &[u8]) -> Option<MacAddress> {
    let mut address = [0; 6];
    let mut digits = units(value);
    for byte in &mut address {
        let [high, low] = [hex_digit(digits.next()?)?, hex_digit(digits.next()?)?];
        *byte = high << 4 | low;
    }
    // A terminating zero is not part of the value.
    let is_complete = digits.all(|unit| unit == 0) && value.len().is_multiple_of(2);
    let address = MacAddress(address);
    (kind == KIND_STRING && is_complete && address.is_station()).then_some(address)
}

/// Reads a number from 0 to 3: a digit, or an integer.
fn directions(kind: u32, value: &[u8]) -> Option<Directions> {
    let number = match kind {
        KIND_INTEGER => u32_at(value, 0)?,
        KIND_STRING => u32::from(units(value).next()?).checked_sub(u32::from(b'0'))?,
        _ => return None,
    };
    (number <= 3).then_some(Directions { transmit: number & 1 != 0, receive: number & 2 != 0 })
}

fn is_name(name: &[u8], keyword: &str) -> bool {
    units(name).eq(keyword.encode_utf16())
}

/// Returns the UTF-16 units of a string.
fn units(string: &[u8]) -> impl Iterator<Item = u16> {
    string.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit))
}

fn hex_digit(unit: u16) -> Option<u8> {
    let digit = char::from_u32(unit.into())?.to_digit(16)?;
    u8::try_from(digit).ok()
}

/// Most bytes of a name or a value.
const MAX_LENGTH: u32 = 255;

// Kinds of values.
const KIND_INTEGER: u32 = 0;
const KIND_STRING: u32 = 2;

/// Windows' keywords for offloads.
const KEYWORDS: [(&str, OffloadKeyword); 7] = [
    ("*IPChecksumOffloadIPv4", OffloadKeyword::Ipv4Checksum),
    ("*TCPChecksumOffloadIPv4", OffloadKeyword::Tcp4Checksum),
    ("*TCPChecksumOffloadIPv6", OffloadKeyword::Tcp6Checksum),
    ("*UDPChecksumOffloadIPv4", OffloadKeyword::Udp4Checksum),
    ("*UDPChecksumOffloadIPv6", OffloadKeyword::Udp6Checksum),
    ("*LsoV2IPv4", OffloadKeyword::Segment4),
    ("*LsoV2IPv6", OffloadKeyword::Segment6),
];
