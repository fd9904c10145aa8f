//! The control plane of a card as plain data, for save and restore.

use serde::{Deserialize, Serialize};

use super::super::super::MacAddress;
use super::super::super::filter::{MulticastList, PacketFilter};
use super::super::super::oid::{CardProperties, Offloads, RssSettings};
use super::super::super::rss::{HashTypes, RssTable, ToeplitzKey};
use super::{Control, Stage};

/// The control plane of a card as plain data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedControl {
    /// State of the connection.
    pub stage: Stage,
    /// The packet filter, as on the wire.
    pub filter: u32,
    /// The current address.
    pub address: [u8; 6],
    /// The multicast list: 6 bytes for each address.
    pub multicast: Vec<u8>,
    /// Offloads that are enabled.
    pub offloads: Offloads,
    /// Frames are distributed by their hash.
    pub is_rss_enabled: bool,
    /// Kinds of flows with a hash, as on the wire.
    pub hash_types: u32,
    /// The key of the hash, 40 bytes.
    pub key: Vec<u8>,
    /// The channels by hash, 128 entries.
    pub table: Vec<u16>,
}

/// A saved state that a card cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the saved card has an impossible {0}")]
pub struct InvalidControl(pub &'static str);

impl Control {
    /// Returns the state as plain data, without the properties.
    pub fn save(&self) -> SavedControl {
        let (filter, rss) = (&self.settings.filter, &self.settings.rss);
        let multicast = filter.multicast.addresses().iter().flat_map(|address| address.0);
        SavedControl {
            stage: self.stage,
            filter: filter.kinds.0,
            address: filter.current.0,
            multicast: multicast.collect(),
            offloads: self.settings.offloads,
            is_rss_enabled: rss.is_enabled,
            hash_types: rss.types.0,
            key: rss.key.bytes().to_vec(),
            table: rss.table.entries().to_vec(),
        }
    }

    /// Recreates the control plane of a card. `channels`: channels in use, the limit of the table's
    /// entries.
    ///
    /// # Errors
    /// The saved state is none that a guest can set, or it has offloads that the card does not
    /// have.
    pub fn restore(
        saved: &SavedControl,
        properties: CardProperties,
        channels: u16,
    ) -> Result<Self, InvalidControl> {
        let current = MacAddress(saved.address);
        if !current.is_station() {
            return Err(InvalidControl("address"));
        }
        let offloads = saved.offloads.and(properties.offloads);
        if offloads != saved.offloads {
            return Err(InvalidControl("offload"));
        }
        let mut control = Self::new(properties, current);
        control.stage = saved.stage;
        control.settings.offloads = offloads;
        let filter = &mut control.settings.filter;
        filter.kinds = PacketFilter(saved.filter);
        filter.multicast =
            MulticastList::parse(&saved.multicast).ok_or(InvalidControl("multicast list"))?;
        let key = saved.key[..].try_into().map_err(|_| InvalidControl("key"))?;
        control.settings.rss = RssSettings {
            is_enabled: saved.is_rss_enabled,
            types: HashTypes(saved.hash_types),
            key: ToeplitzKey::new(key),
            table: RssTable::new(saved.table.iter().map(|entry| (*entry).into()), channels)
                .filter(|table| table.entries()[..] == saved.table[..])
                .ok_or(InvalidControl("indirection table"))?,
        };
        Ok(control)
    }
}
