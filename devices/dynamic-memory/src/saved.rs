//! The saved state of the device's channel ([`vmbus_host::Device::save`]). A restore checks all of
//! it. The content of memory is not part of it; pages of the balloon need none.

use serde::{Deserialize, Serialize};
use vmbus_device::{SavedFormError, SavedPacket, parse_saved};

use crate::handler::SavedState;

/// The version of the format. A restore accepts no other. Must be incremented with every change of
/// the types here.
const FORMAT: u32 = 1;

/// Maximum bytes of a state: a balloon of scattered pages in a guest of some GiB.
const MAX_BYTES: usize = 64 << 20;

/// The saved state of the open channel.
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

    /// Serialises the state. `None`: it is too long, or cannot be serialised.
    pub(crate) fn to_bytes(&self) -> Option<Vec<u8>> {
        serde_json::to_vec(self).ok().filter(|bytes| bytes.len() <= MAX_BYTES)
    }

    /// Parses a state.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, SavedFormError> {
        parse_saved(bytes, FORMAT, MAX_BYTES)
    }
}
