//! Configuration of network cards.

mod check;
mod descriptors;
mod identity;
mod keys;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use synthvm_net::LinkState;
use synthvm_net::passt::Forward;
use synthvm_netvsp::protocol::MacAddress;

use super::node::Bare;
use super::{ConfigError, de, keyvalue};
pub use check::MAX_CARDS;
pub(super) use check::complete;
pub use descriptors::Descriptors;
pub(crate) use identity::instance;
use keys::Keys;
pub use keys::{MAX_MTU, MAX_QUEUES, MIN_MTU};

/// `--net tap,name=tap0` is `--net backend=tap,name=tap0`. `forward` may be given more than once.
pub(super) const BARE: Bare =
    Bare { key: "backend", prefixes: &[], lists: &["forward"], words: &[] };

/// A network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Keys", into = "Keys")]
pub struct NetworkConfig {
    /// The network behind the card.
    pub backend: NetworkBackend,
    /// The most channels of the card, 1 to [`MAX_QUEUES`], with a host thread each. A guest opens
    /// as many as it has processors. A TAP interface is opened with as many queues.
    pub queues: u16,
    /// The card's name in `synthvm inspect` and `synthvm net`. Unique among the cards, and the same
    /// for the same card at every start: the guest's settings belong to it. Default: `net` and the
    /// card's index. Always set after loading.
    pub id: Option<String>,
    /// The card's permanent address. Default: derived from the machine and the id. Always set after
    /// loading.
    pub mac: Option<MacAddress>,
    /// The largest MTU that the guest is offered, [`MIN_MTU`] to [`MAX_MTU`]. Default: that of the
    /// backend.
    pub mtu: Option<u32>,
    /// A new file for the card's frames, in the format pcapng.
    pub pcap: Option<PathBuf>,
    /// The state of the link at the start of the machine.
    pub link: LinkState,
    /// Interrupt moderation: the card may delay the interrupt for sent frames while the guest sends
    /// more of them because of the delay.
    pub moderation: bool,
}

/// The network behind a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkBackend {
    /// A TAP interface that exists. It is left as it was.
    Tap {
        /// The interface.
        name: String,
    },
    /// A TAP interface whose descriptors were passed to the program, one for each queue.
    TapDescriptors(Descriptors),
    /// User-mode networking by the program passt, which needs no privilege.
    User {
        /// Ports of the host that lead to the guest.
        forward: Vec<Forward>,
        /// The program. Default: `passt`, which is searched for in `PATH`.
        program: Option<PathBuf>,
    },
    /// The switch of this name. All cards of the machine with the same name are on it.
    Switch(String),
    /// A cable to another machine, which connects to this new socket.
    Listen(PathBuf),
    /// A cable to another machine, which listens at this socket.
    Connect(PathBuf),
    /// No network: frames are dropped.
    Null,
}

/// Formats the backend as on a command line, without the keys that tell no two apart.
impl fmt::Display for NetworkBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetworkBackend::Tap { name } => write!(f, "tap,name={name}"),
            NetworkBackend::TapDescriptors(descriptors) => write!(f, "tap,fd={descriptors}"),
            NetworkBackend::User { .. } => f.write_str("user"),
            NetworkBackend::Switch(name) => write!(f, "switch,name={name}"),
            NetworkBackend::Listen(path) => write!(f, "socket,listen={}", path.display()),
            NetworkBackend::Connect(path) => write!(f, "socket,connect={}", path.display()),
            NetworkBackend::Null => f.write_str("null"),
        }
    }
}

impl NetworkConfig {
    /// Returns the paths of the host in the configuration.
    pub(super) fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let backend = match &mut self.backend {
            NetworkBackend::Listen(path) | NetworkBackend::Connect(path) => Some(path),
            NetworkBackend::User { program, .. } => program.as_mut(),
            NetworkBackend::Tap { .. }
            | NetworkBackend::TapDescriptors(_)
            | NetworkBackend::Switch(_)
            | NetworkBackend::Null => None,
        };
        backend.into_iter().chain(&mut self.pcap)
    }
}

impl FromStr for NetworkConfig {
    type Err = ConfigError;

    /// Parses the value of the option `--net`.
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let node = keyvalue::parse("net", text, BARE)?;
        de::from_node(&node).map_err(|error| node.place(error))
    }
}
