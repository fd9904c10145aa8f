//! Changes that a guest asks for (netvsc sections 7.4 to 7.6).

use super::super::bytes::{u16_at, u32_at};
use super::super::filter::{MulticastList, PacketFilter};
use super::super::limits::ETHERNET_HEADER;
use super::super::rndis::RndisStatus;
use super::card::{CardProperties, Connection, Settings};
use super::config_parameter::ConfigParameter;
use super::{codes as oid, offload_parameters, rss_parameters};

/// The part of the settings that a SET concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// None: the host ignores the value.
    None,
    /// The packet filter or the multicast list.
    Filter,
    /// The enabled offloads, by TCP_OFFLOAD_PARAMETERS: an indication follows.
    Offloads,
    /// The enabled offloads, by a parameter of the driver.
    OffloadKeyword,
    /// Receive-side scaling.
    Rss,
    /// The current address.
    Address,
}

/// Applies the SET of `code` to `settings`, which an error leaves unchanged.
///
/// # Errors
/// [`RndisStatus::NotSupported`] for an unknown OID or a feature that the host does not have; other
/// status codes for malformed data.
pub fn set(
    code: u32,
    data: &[u8],
    properties: &CardProperties,
    settings: &mut Settings,
    connection: &Connection,
) -> Result<Change, RndisStatus> {
    match code {
        oid::GEN_CURRENT_PACKET_FILTER => {
            let word = u32_at(data, 0).ok_or(RndisStatus::InvalidLength)?;
            settings.filter.kinds = PacketFilter(word);
            Ok(Change::Filter)
        }
        oid::ETHERNET_MULTICAST_LIST => {
            settings.filter.multicast = multicast_list(data)?;
            Ok(Change::Filter)
        }
        oid::TCP_OFFLOAD_PARAMETERS => {
            let capabilities = properties.offloads_for(connection);
            settings.offloads = offload_parameters::apply(data, settings.offloads, capabilities)?;
            Ok(Change::Offloads)
        }
        oid::GEN_RECEIVE_SCALE_PARAMETERS => {
            settings.rss = rss_parameters::apply(data, &settings.rss, connection.channels)?;
            Ok(Change::Rss)
        }
        oid::GEN_RNDIS_CONFIG_PARAMETER => config_parameter(data, properties, settings, connection),
        oid::OFFLOAD_ENCAPSULATION => check_encapsulation(data).map(|()| Change::None),
        oid::GEN_NETWORK_LAYER_ADDRESSES => Ok(Change::None),
        _ => Err(RndisStatus::NotSupported),
    }
}

fn multicast_list(data: &[u8]) -> Result<MulticastList, RndisStatus> {
    let error = if data.len().is_multiple_of(6) {
        RndisStatus::Resources
    } else {
        RndisStatus::InvalidLength
    };
    MulticastList::parse(data).ok_or(error)
}

fn config_parameter(
    data: &[u8],
    properties: &CardProperties,
    settings: &mut Settings,
    connection: &Connection,
) -> Result<Change, RndisStatus> {
    match ConfigParameter::parse(data)? {
        ConfigParameter::Address(address) if properties.may_change_address => {
            settings.filter.current = address;
            Ok(Change::Address)
        }
        ConfigParameter::Address(address) if address == settings.filter.current => Ok(Change::None),
        ConfigParameter::Address(_) => Err(RndisStatus::Failure),
        ConfigParameter::Offload(keyword, directions) => {
            let enabled = keyword.apply(directions, settings.offloads);
            settings.offloads = enabled.and(properties.offloads_for(connection));
            Ok(Change::OffloadKeyword)
        }
        ConfigParameter::Unknown => Ok(Change::None),
    }
}

/// Checks an encapsulation: for IPv4 and IPv6 either disabled, or Ethernet with 14 bytes.
fn check_encapsulation(data: &[u8]) -> Result<(), RndisStatus> {
    const SIZE: u16 = 28;
    const ETHERNET: u32 = 2;
    let is_sound = data.len() >= SIZE.into()
        && data[0] == ENCAPSULATION_OBJECT
        && data[1] >= 1
        && u16_at(data, 2).is_some_and(|size| size >= SIZE);
    if !is_sound {
        return Err(RndisStatus::InvalidData);
    }
    let word = |offset| u32_at(data, offset);
    let is_supported = [4, 16].into_iter().all(|start| {
        let is_ethernet = word(start + 4) == Some(ETHERNET);
        word(start) != Some(1) || (is_ethernet && word(start + 8) == Some(ETHERNET_HEADER))
    });
    if is_supported { Ok(()) } else { Err(RndisStatus::NotSupported) }
}

/// Object type of an encapsulation.
pub(super) const ENCAPSULATION_OBJECT: u8 = 0xA8;
