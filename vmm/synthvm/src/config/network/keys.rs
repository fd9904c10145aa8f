//! The keys of a card, as a user writes them, and the rules between them.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};
use synthvm_net::passt::Forward;
use synthvm_net::{LinkState, MAX_FRAME, MIN_FRAME, tap};
use synthvm_netvsp::protocol::MacAddress;

use super::super::de::{one_or_more, optional_host_path};
use super::super::{bounded, check_id};
use super::{Descriptors, NetworkBackend, NetworkConfig};

/// The most queues of a card: as many as a machine has vCPUs.
pub const MAX_QUEUES: u16 = 64;

/// The smallest MTU: the smallest that IPv4 allows (RFC 791), and that Linux accepts.
pub const MIN_MTU: u32 = 68;

/// The largest MTU: a frame of that many bytes and its Ethernet header has 65,535 bytes.
pub const MAX_MTU: u32 = (MAX_FRAME - 2 * MIN_FRAME) as u32;

/// All keys of a card.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Keys {
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<Kind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(deserialize_with = "queues", skip_serializing_if = "Option::is_none")]
    queues: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fd: Option<Descriptors>,
    #[serde(deserialize_with = "forwards", skip_serializing_if = "Vec::is_empty")]
    forward: Vec<Forward>,
    #[serde(deserialize_with = "optional_host_path", skip_serializing_if = "Option::is_none")]
    passt: Option<PathBuf>,
    #[serde(deserialize_with = "optional_host_path", skip_serializing_if = "Option::is_none")]
    listen: Option<PathBuf>,
    #[serde(deserialize_with = "optional_host_path", skip_serializing_if = "Option::is_none")]
    connect: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<MacAddress>,
    #[serde(deserialize_with = "mtu", skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    #[serde(deserialize_with = "optional_host_path", skip_serializing_if = "Option::is_none")]
    pcap: Option<PathBuf>,
    link: LinkState,
    #[serde(default = "super::super::on")]
    moderation: bool,
}

/// The kinds of backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Tap,
    User,
    Switch,
    Socket,
    Null,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Tap => "tap",
            Kind::User => "user",
            Kind::Switch => "switch",
            Kind::Socket => "socket",
            Kind::Null => "null",
        }
    }
}

impl TryFrom<Keys> for NetworkConfig {
    type Error = String;

    fn try_from(keys: Keys) -> Result<Self, String> {
        let kind = keys.backend.ok_or(
            "a network card needs a backend: tap, user, switch, socket or null, for example \
             `--net user`",
        )?;
        keys.refuse_others(kind)?;
        check_id(keys.id.as_deref())?;
        if keys.mac.is_some_and(|mac| !mac.is_station()) {
            return Err(
                "`mac` must be the address of one card, so its first byte is even and not \
                        all are 0; use for example 02:00:00:12:34:56"
                    .into(),
            );
        }
        let Keys { queues, id, mac, mtu, pcap, link, moderation, .. } = keys.clone();
        let backend = backend(kind, keys)?;
        let queues = match &backend {
            NetworkBackend::TapDescriptors(descriptors) => descriptors.count(),
            _ => queues.unwrap_or(1),
        };
        Ok(NetworkConfig { backend, queues, id, mac, mtu, pcap, link, moderation })
    }
}

impl From<NetworkConfig> for Keys {
    fn from(config: NetworkConfig) -> Self {
        let NetworkConfig { backend, queues, id, mac, mtu, pcap, link, moderation } = config;
        let queues = Some(queues);
        let mut keys = Keys { queues, id, mac, mtu, pcap, link, moderation, ..Keys::default() };
        let kind = match backend {
            NetworkBackend::Tap { name } => {
                keys.name = Some(name);
                Kind::Tap
            }
            NetworkBackend::TapDescriptors(descriptors) => {
                (keys.fd, keys.queues) = (Some(descriptors), None);
                Kind::Tap
            }
            NetworkBackend::User { forward, program } => {
                (keys.forward, keys.passt) = (forward, program);
                Kind::User
            }
            NetworkBackend::Switch(name) => {
                keys.name = Some(name);
                Kind::Switch
            }
            NetworkBackend::Listen(path) => {
                keys.listen = Some(path);
                Kind::Socket
            }
            NetworkBackend::Connect(path) => {
                keys.connect = Some(path);
                Kind::Socket
            }
            NetworkBackend::Null => Kind::Null,
        };
        keys.backend = Some(kind);
        keys
    }
}

impl Keys {
    /// Refuses the keys of other backends than `kind`.
    fn refuse_others(&self, kind: Kind) -> Result<(), String> {
        let keys: [(&str, bool, &[Kind]); 6] = [
            ("name", self.name.is_some(), &[Kind::Tap, Kind::Switch]),
            ("fd", self.fd.is_some(), &[Kind::Tap]),
            ("forward", !self.forward.is_empty(), &[Kind::User]),
            ("passt", self.passt.is_some(), &[Kind::User]),
            ("listen", self.listen.is_some(), &[Kind::Socket]),
            ("connect", self.connect.is_some(), &[Kind::Socket]),
        ];
        match keys.iter().find(|(_, given, kinds)| *given && !kinds.contains(&kind)) {
            Some((key, _, kinds)) => {
                let kinds: Vec<_> = kinds.iter().map(|kind| format!("`{}`", kind.name())).collect();
                let (kinds, kind) = (kinds.join(" and "), kind.name());
                Err(format!("`{key}` is for {kinds} and not for `{kind}`; leave it out"))
            }
            None => Ok(()),
        }
    }
}

/// Returns the backend of `kind`, whose keys are the only ones given.
fn backend(kind: Kind, keys: Keys) -> Result<NetworkBackend, String> {
    match kind {
        Kind::Tap => tap_backend(keys),
        Kind::User => {
            let Keys { forward, passt: program, .. } = keys;
            check_forwards(&forward)?;
            Ok(NetworkBackend::User { forward, program })
        }
        Kind::Switch => match keys.name {
            Some(name) if !name.is_empty() => Ok(NetworkBackend::Switch(name)),
            _ => {
                Err("`switch` needs name=NAME; all cards with the same name are on one switch"
                    .into())
            }
        },
        Kind::Socket => match (keys.listen, keys.connect) {
            (Some(path), None) => Ok(NetworkBackend::Listen(path)),
            (None, Some(path)) => Ok(NetworkBackend::Connect(path)),
            (None, None) => {
                Err("`socket` needs listen=PATH in one machine and connect=PATH in the other"
                    .into())
            }
            (Some(_), Some(_)) => {
                Err("a socket has only one of listen= and connect=; leave the other out".into())
            }
        },
        Kind::Null => Ok(NetworkBackend::Null),
    }
}

fn tap_backend(keys: Keys) -> Result<NetworkBackend, String> {
    match (keys.name, keys.fd) {
        (Some(name), None) => {
            tap::check_name(&name).map_err(|error| error.to_string())?;
            Ok(NetworkBackend::Tap { name })
        }
        (None, Some(_)) if keys.queues.is_some() => {
            Err("`queues` follows from the number of descriptors; leave it out".into())
        }
        (None, Some(descriptors)) => Ok(NetworkBackend::TapDescriptors(descriptors)),
        (None, None) => Err("`tap` needs name=INTERFACE or fd=N".into()),
        (Some(_), Some(_)) => {
            Err("a TAP interface has only one of name= and fd=; leave the other out".into())
        }
    }
}

/// Checks that no port of the host is forwarded twice.
fn check_forwards(forwards: &[Forward]) -> Result<(), String> {
    for (index, forward) in forwards.iter().enumerate() {
        let same = |other: &&Forward| {
            (other.protocol, other.host, other.address)
                == (forward.protocol, forward.host, forward.address)
        };
        if forwards[..index].iter().any(|other| same(&other)) {
            return Err(format!("`forward={forward}`: this port of the host is forwarded already"));
        }
    }
    Ok(())
}

fn queues<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    bounded(deserializer, "a card's number of queues", 1..=MAX_QUEUES).map(Some)
}

fn mtu<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    bounded(deserializer, "an MTU", MIN_MTU..=MAX_MTU).map(Some)
}

fn forwards<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Forward>, D::Error> {
    one_or_more(deserializer, "a port forward such as \"tcp:2222:22\", or a list of them")
}
