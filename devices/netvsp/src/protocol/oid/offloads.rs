//! Offloads, and the NDIS_OFFLOAD structure (netvsc section 7.3).

use serde::{Deserialize, Serialize};

use super::super::limits::ADVERTISED_SEGMENTED_FRAME;
use super::super::nvsp::NdisVersion;
use super::answer::OidAnswer;

/// Offloads: those that a card has, or those that are enabled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offloads {
    /// Checksum of the IPv4 header.
    pub ipv4: Directions,
    /// TCP checksum over IPv4.
    pub tcp4: Directions,
    /// UDP checksum over IPv4.
    pub udp4: Directions,
    /// TCP checksum over IPv6.
    pub tcp6: Directions,
    /// UDP checksum over IPv6.
    pub udp6: Directions,
    /// Segmentation of TCP over IPv4 by the host.
    pub segment4: bool,
    /// Segmentation of TCP over IPv6 by the host.
    pub segment6: bool,
    /// Coalescing of received TCP segments over IPv4.
    pub coalesce4: bool,
    /// Coalescing of received TCP segments over IPv6.
    pub coalesce6: bool,
}

/// Directions of a checksum offload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directions {
    /// The host computes the checksums of frames of the guest.
    pub transmit: bool,
    /// The host checks the checksums of frames to the guest.
    pub receive: bool,
}

impl Directions {
    /// Both directions.
    pub const BOTH: Self = Self { transmit: true, receive: true };

    fn and(self, other: Self) -> Self {
        Self { transmit: self.transmit && other.transmit, receive: self.receive && other.receive }
    }
}

impl Offloads {
    /// Returns the offloads that are in both sets.
    pub fn and(self, other: Self) -> Self {
        Self {
            ipv4: self.ipv4.and(other.ipv4),
            tcp4: self.tcp4.and(other.tcp4),
            udp4: self.udp4.and(other.udp4),
            tcp6: self.tcp6.and(other.tcp6),
            udp6: self.udp6.and(other.udp6),
            segment4: self.segment4 && other.segment4,
            segment6: self.segment6 && other.segment6,
            coalesce4: self.coalesce4 && other.coalesce4,
            coalesce6: self.coalesce6 && other.coalesce6,
        }
    }

    /// Returns the same offloads without coalescing.
    pub fn without_coalescing(self) -> Self {
        Self { coalesce4: false, coalesce6: false, ..self }
    }

    /// Returns the NDIS_OFFLOAD structure.
    pub(in super::super) fn to_ndis(self, revision: OffloadRevision) -> OidAnswer {
        const ZEROS: [u8; 32] = [0; 32];
        let side = |side: fn(Directions) -> bool| {
            let [ip, tcp, udp] = [self.ipv4, self.tcp4, self.udp4].map(side);
            let flags4 = checksum_flags(tcp, udp) | if ip { IP_CHECKSUM } else { 0 };
            let flags6 = checksum_flags(side(self.tcp6), side(self.udp6));
            [flags4, flags6].map(|flags| {
                let is_any = flags != 0;
                [encapsulation(is_any), flags | if is_any { IP_EXTENSIONS } else { 0 }]
            })
        };
        let [transmit4, transmit6] = side(|directions| directions.transmit);
        let [receive4, receive6] = side(|directions| directions.receive);
        let checksums = [transmit4, receive4, transmit6, receive6];
        let segment = |is_on: bool| {
            let [size, segments] = if is_on { [ADVERTISED_SEGMENTED_FRAME, 2] } else { [0, 0] };
            [encapsulation(is_on), size, segments]
        };
        let segment6_options = if self.segment6 { IP_EXTENSIONS | TCP_OPTIONS } else { 0 };
        let answer = OidAnswer::new().header(OBJECT_TYPE, revision.number(), revision.size());
        let words = |answer: OidAnswer, words: &[u32]| words.iter().fold(answer, |a, w| a.u32(*w));
        let answer = words(answer, checksums.as_flattened());
        // Version 1 of large send, and IPsec: not supported.
        let answer = answer.append(&ZEROS[..16]).append(&ZEROS[..28]);
        let answer = words(answer, &segment(self.segment4));
        let answer = words(answer, &segment(self.segment6)).u32(segment6_options);
        // Flags, version 2 of IPsec, coalescing, encapsulation.
        let answer = answer.u32(0).append(&ZEROS);
        let answer = answer.append(&[self.coalesce4.into(), self.coalesce6.into(), 0, 0]);
        answer.u32(0).u32(0).resized(revision.size())
    }
}

/// A revision of the NDIS_OFFLOAD structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffloadRevision {
    /// 1, of NDIS 6.0.
    R1,
    /// 2, of NDIS 6.1.
    R2,
    /// 3, of NDIS 6.30: with coalescing.
    R3,
}

impl OffloadRevision {
    /// Returns the revision that guests with this version of NDIS expect. `None`: before 6.0 there
    /// is none.
    pub fn of(version: NdisVersion) -> Option<Self> {
        if version >= NdisVersion::V6_30 {
            Some(Self::R3)
        } else if version >= NdisVersion::V6_1 {
            Some(Self::R2)
        } else if version >= NdisVersion::V6_0 {
            Some(Self::R1)
        } else {
            None
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::R1 => 1,
            Self::R2 => 2,
            Self::R3 => 3,
        }
    }

    /// Returns the bytes of the structure.
    pub fn size(self) -> u16 {
        match self {
            Self::R1 => 112,
            Self::R2 => 144,
            Self::R3 => 156,
        }
    }
}

fn checksum_flags(tcp: bool, udp: bool) -> u32 {
    (if tcp { TCP_OPTIONS | TCP_CHECKSUM } else { 0 }) | (if udp { UDP_CHECKSUM } else { 0 })
}

/// Returns the encapsulation of a feature: Ethernet, or none if it is off.
fn encapsulation(is_on: bool) -> u32 {
    if is_on { 2 } else { 0 }
}

const OBJECT_TYPE: u8 = 0xA7;

// Two-bit fields, of which 1 means supported.
/// IPv4 options, or extension headers of IPv6.
const IP_EXTENSIONS: u32 = 1;
const TCP_OPTIONS: u32 = 1 << 2;
const TCP_CHECKSUM: u32 = 1 << 4;
const UDP_CHECKSUM: u32 = 1 << 6;
const IP_CHECKSUM: u32 = 1 << 8;
