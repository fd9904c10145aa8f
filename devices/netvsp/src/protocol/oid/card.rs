//! The values behind OIDs.

use super::super::MacAddress;
use super::super::filter::ReceiveFilter;
use super::super::nvsp::NdisVersion;
use super::super::rss::{HashTypes, RssTable, ToeplitzKey};
use super::offloads::Offloads;

/// Properties of a card that no guest changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardProperties {
    /// Permanent address.
    pub address: MacAddress,
    /// Name for users. Guests get its first 255 UTF-16 units; Linux makes it the interface's
    /// alias.
    pub name: String,
    /// Most channels, the primary channel included: 1..=64.
    pub max_channels: u16,
    /// Offloads that the backend has.
    pub offloads: Offloads,
    /// The guest may set another address.
    pub may_change_address: bool,
}

/// State of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The link is up.
    pub is_up: bool,
    /// Speed in bit/s, for both directions.
    pub speed: u64,
}

/// Values that the guest negotiated by NVSP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Longest frame in bytes, with the Ethernet header.
    pub max_frame: u32,
    /// Version of the guest's network driver interface.
    pub ndis_version: NdisVersion,
    /// Channels in use, the primary channel included: one more than the granted subchannels.
    pub channels: u16,
    /// The guest accepts coalesced segments.
    pub may_coalesce: bool,
}

/// Values that the guest sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Frames that the guest receives, and the current address.
    pub filter: ReceiveFilter,
    /// Offloads that are enabled.
    pub offloads: Offloads,
    /// Receive-side scaling.
    pub rss: RssSettings,
}

impl Settings {
    /// Creates the settings of a card at the start of a connection: no reception, no receive-side
    /// scaling, all offloads of the card but coalescing. `current`: the card's current address.
    pub fn new(properties: &CardProperties, current: MacAddress) -> Self {
        Self {
            filter: ReceiveFilter::new(properties.address, current),
            offloads: properties.offloads.without_coalescing(),
            rss: RssSettings::default(),
        }
    }
}

/// Receive-side scaling.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RssSettings {
    /// Frames are distributed. Otherwise all go to the primary channel, without a hash.
    pub is_enabled: bool,
    /// Kinds of flows with a hash.
    pub types: HashTypes,
    /// The key of the hash.
    pub key: ToeplitzKey,
    /// The channels by hash.
    pub table: RssTable,
}
