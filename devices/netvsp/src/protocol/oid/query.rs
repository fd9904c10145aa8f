//! Answers to queries (netvsc section 7.2).

use super::super::MacAddress;
use super::super::limits::{ETHERNET_HEADER, INDIRECTION_ENTRIES, MAX_MULTICAST};
use super::super::nvsp::NdisVersion;
use super::super::rndis::RndisStatus;
use super::answer::OidAnswer;
use super::card::{CardProperties, Connection, Link, Settings};
use super::codes as oid;
use super::offloads::{OffloadRevision, Offloads};
use super::statistics::Statistics;

/// Answers the query of `code`.
///
/// # Errors
/// [`RndisStatus::NotSupported`] for an unknown OID; [`RndisStatus::BadVersion`] for the list of
/// OIDs if the guest's NDIS version is neither 5 nor 6.
pub fn query(
    code: u32,
    properties: &CardProperties,
    settings: &Settings,
    connection: &Connection,
    link: Link,
    statistics: &Statistics,
) -> Result<OidAnswer, RndisStatus> {
    let version = connection.ndis_version;
    Ok(match code {
        oid::GEN_SUPPORTED_LIST => supported_list(version)?,
        // Ready; 802.3; no error so far.
        oid::GEN_HARDWARE_STATUS
        | oid::GEN_MEDIA_SUPPORTED
        | oid::GEN_MEDIA_IN_USE
        | oid::ETHERNET_RCV_ERROR_ALIGNMENT
        | oid::ETHERNET_XMIT_ONE_COLLISION
        | oid::ETHERNET_XMIT_MORE_COLLISIONS => OidAnswer::word(0),
        oid::GEN_MAXIMUM_LOOKAHEAD | oid::GEN_CURRENT_LOOKAHEAD | oid::GEN_MAXIMUM_FRAME_SIZE => {
            OidAnswer::word(connection.max_frame.saturating_sub(ETHERNET_HEADER))
        }
        oid::GEN_LINK_SPEED => OidAnswer::word(link.speed_in_100_bits()),
        oid::GEN_TRANSMIT_BUFFER_SPACE | oid::GEN_RECEIVE_BUFFER_SPACE => {
            OidAnswer::word(BUFFER_SPACE)
        }
        oid::GEN_TRANSMIT_BLOCK_SIZE
        | oid::GEN_RECEIVE_BLOCK_SIZE
        | oid::GEN_MAXIMUM_TOTAL_SIZE => OidAnswer::word(connection.max_frame),
        oid::GEN_VENDOR_ID => OidAnswer::word(VENDOR_ID),
        oid::GEN_VENDOR_DESCRIPTION => OidAnswer::new().append(VENDOR_DESCRIPTION),
        oid::GEN_VENDOR_DRIVER_VERSION | oid::GEN_DRIVER_VERSION => {
            OidAnswer::new().u16(DRIVER_VERSION)
        }
        oid::GEN_CURRENT_PACKET_FILTER => OidAnswer::word(settings.filter.kinds.0),
        oid::GEN_MAC_OPTIONS => OidAnswer::word(MAC_OPTIONS),
        oid::GEN_MEDIA_CONNECT_STATUS => OidAnswer::word((!link.is_up).into()),
        oid::GEN_MAXIMUM_SEND_PACKETS => OidAnswer::word(u32::MAX),
        oid::GEN_FRIENDLY_NAME => friendly_name(&properties.name),
        oid::ETHERNET_PERMANENT_ADDRESS => address(properties.address),
        oid::ETHERNET_CURRENT_ADDRESS => address(settings.filter.current),
        oid::ETHERNET_MAXIMUM_LIST_SIZE => OidAnswer::word(MAX_MULTICAST as u32),
        oid::GEN_MAX_LINK_SPEED => OidAnswer::new().u64(link.speed).u64(link.speed),
        oid::GEN_LINK_STATE => link_state(link),
        oid::TCP_OFFLOAD_HARDWARE_CAPABILITIES => {
            ndis_offload(properties.offloads_for(connection), version)?
        }
        oid::TCP_OFFLOAD_CURRENT_CONFIG => ndis_offload(settings.offloads, version)?,
        oid::OFFLOAD_ENCAPSULATION => encapsulation(),
        oid::GEN_RECEIVE_SCALE_CAPABILITIES => rss_capabilities(properties.max_channels),
        _ => return statistics.answer(code, version).ok_or(RndisStatus::NotSupported),
    })
}

impl Link {
    /// Returns the speed in units of 100 bit/s, as far as it fits.
    pub(in super::super) fn speed_in_100_bits(self) -> u32 {
        u32::try_from(self.speed / 100).unwrap_or(u32::MAX)
    }
}

impl CardProperties {
    /// Returns the offloads that a connection may enable.
    pub(super) fn offloads_for(&self, connection: &Connection) -> Offloads {
        if connection.may_coalesce { self.offloads } else { self.offloads.without_coalescing() }
    }
}

fn supported_list(version: NdisVersion) -> Result<OidAnswer, RndisStatus> {
    if !matches!(version.major, 5 | 6) {
        return Err(RndisStatus::BadVersion);
    }
    let since = |first, codes| if version >= first { codes } else { &[][..] };
    let codes = oid::COMMON
        .iter()
        .chain(since(NdisVersion::V6_0, &oid::SINCE_6_0))
        .chain(since(NdisVersion::V6_30, &oid::SINCE_6_30));
    Ok(codes.fold(OidAnswer::new(), |answer, code| answer.u32(*code)))
}

/// Returns the name in UTF-16, cut or padded with zeros to 512 bytes, the last unit a zero.
fn friendly_name(name: &str) -> OidAnswer {
    const UNITS: usize = OidAnswer::MAX / 2 - 1;
    let units = name.encode_utf16().take(UNITS);
    units.fold(OidAnswer::new(), OidAnswer::u16).resized(OidAnswer::MAX as u16)
}

fn address(address: MacAddress) -> OidAnswer {
    OidAnswer::new().append(&address.0)
}

fn link_state(link: Link) -> OidAnswer {
    const DEFAULT_OBJECT: u8 = 0x80;
    let [unknown_duplex, padding, unknown_pause, no_negotiation] = [0; 4];
    OidAnswer::new()
        .header(DEFAULT_OBJECT, 1, 40)
        .u32(if link.is_up { 1 } else { 2 })
        .u32(unknown_duplex)
        .u32(padding)
        .u64(link.speed)
        .u64(link.speed)
        .u32(unknown_pause)
        .u32(no_negotiation)
}

fn ndis_offload(offloads: Offloads, version: NdisVersion) -> Result<OidAnswer, RndisStatus> {
    let revision = OffloadRevision::of(version).ok_or(RndisStatus::NotSupported)?;
    Ok(offloads.to_ndis(revision))
}

/// Returns the encapsulation of offloaded frames: Ethernet with a header of 14 bytes, for IPv4 and
/// IPv6.
fn encapsulation() -> OidAnswer {
    let answer = OidAnswer::new().header(super::set::ENCAPSULATION_OBJECT, 1, 28);
    [1, 2, ETHERNET_HEADER, 1, 2, ETHERNET_HEADER].into_iter().fold(answer, OidAnswer::u32)
}

/// Returns exactly 18 bytes: Linux refuses an answer with padding.
fn rss_capabilities(max_channels: u16) -> OidAnswer {
    const OBJECT_TYPE: u8 = 0x88;
    /// The Toeplitz hash, of TCP over IPv4 and IPv6.
    const CAPABILITIES: u32 = 0x301;
    OidAnswer::new()
        .header(OBJECT_TYPE, 2, 18)
        .u32(CAPABILITIES)
        .u32(1)
        .u32(max_channels.into())
        .u16(INDIRECTION_ENTRIES as u16)
}

/// Bytes that the card claims to buffer in each direction.
const BUFFER_SPACE: u32 = 262_144;
/// The prefix of Microsoft's addresses, 00-15-5D.
const VENDOR_ID: u32 = 0x155D;
const VENDOR_DESCRIPTION: &[u8] = b"Microsoft Corporation";
/// Version 1.0.
const DRIVER_VERSION: u16 = 0x0100;
/// Lookahead data is copied, transfers never pend, frames are not looped back, and priorities and
/// VLANs are supported.
const MAC_OPTIONS: u32 = 0x24D;
