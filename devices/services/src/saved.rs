//! The saved state of a service's channel ([`vmbus_host::Device::save`]). A restore checks all of
//! it. Requests of clients are not saved: their clients are gone.

use serde::{Deserialize, Serialize};
use vmbus_device::{SavedFormError, SavedPacket, parse_saved};

use crate::protocol::SavedSession;

/// The version of the format. A restore accepts no other. Must be incremented with every change of
/// the types here.
const FORMAT: u32 = 1;

/// Maximum bytes of a state: a few waiting packets as lists of numbers.
const MAX_BYTES: usize = 1 << 20;

/// The handler's part of a saved channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedState {
    pub(crate) session: SavedSession,
    pub(crate) service: SavedService,
}

/// The state of a service itself. Each service uses its own field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedService {
    /// The sequence number of the last heartbeat.
    pub(crate) sequence: u64,
    /// The guest's file systems are frozen. They are thawed after a restore.
    pub(crate) is_frozen: bool,
}

/// The saved state of an open channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedChannel {
    format: u32,
    /// Packets to the guest that are not in its ring yet, oldest first.
    pub(crate) packets: Vec<SavedPacket>,
    pub(crate) state: SavedState,
}

impl SavedChannel {
    pub(crate) fn new(packets: Vec<SavedPacket>, state: SavedState) -> Self {
        Self { format: FORMAT, packets, state }
    }

    /// Serialises the state. `None`: serialisation failed.
    pub(crate) fn to_bytes(&self) -> Option<Vec<u8>> {
        serde_json::to_vec(self).ok()
    }

    /// Parses a state.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, SavedFormError> {
        parse_saved(bytes, FORMAT, MAX_BYTES)
    }
}
