//! The OID half of the conformance checklist (netvsc section 13).

mod parameters;
mod queries;
mod rss;
mod statistics;

use super::super::nvsp::NdisVersion;
use super::*;
use crate::protocol::MacAddress;
use crate::protocol::rndis::RndisStatus;

const ADDRESS: MacAddress = MacAddress([0x00, 0x15, 0x5D, 1, 2, 3]);

const ALL_OFFLOADS: Offloads = Offloads {
    ipv4: Directions::BOTH,
    tcp4: Directions::BOTH,
    udp4: Directions::BOTH,
    tcp6: Directions::BOTH,
    udp6: Directions::BOTH,
    segment4: true,
    segment6: true,
    coalesce4: true,
    coalesce6: true,
};

const CONNECTION: Connection = Connection {
    max_frame: 1514,
    ndis_version: NdisVersion::V6_30,
    channels: 4,
    may_coalesce: true,
};

const LINK: Link = Link { is_up: true, speed: 10_000_000_000 };

fn properties() -> CardProperties {
    CardProperties {
        address: ADDRESS,
        name: "net0".to_owned(),
        max_channels: 8,
        offloads: ALL_OFFLOADS,
        may_change_address: true,
    }
}

fn settings() -> Settings {
    Settings::new(&properties(), ADDRESS)
}

/// Applies a SET to `settings` on a card with all features.
fn set_on(settings: &mut Settings, code: u32, data: &[u8]) -> Result<Change, RndisStatus> {
    let before = settings.clone();
    let result = set(code, data, &properties(), settings, &CONNECTION);
    if result.is_err() {
        assert_eq!(*settings, before);
    }
    result
}

fn word_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap())
}

fn put(bytes: &mut [u8], offset: usize, word: u32) {
    bytes[offset..offset + 4].copy_from_slice(&word.to_le_bytes());
}
