//! The saved state of a device's channel ([`vmbus_host::Device::save`]). A restore checks all of
//! it. Events that wait for the guest are not saved: their viewer is gone.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use vmbus_device::{SavedFormError, SavedPacket, parse_saved};

/// The version of the format. A restore accepts no other. Must be incremented with every change of
/// the types here.
const FORMAT: u32 = 1;

/// Maximum bytes of a state: a full outbox of events.
const MAX_BYTES: usize = 1 << 20;

/// The saved state of an open channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedChannel<S> {
    format: u32,
    /// Packets to the guest that are not in its ring yet, oldest first.
    pub(crate) packets: Vec<SavedPacket>,
    pub(crate) session: S,
}

impl<S: Serialize + DeserializeOwned> SavedChannel<S> {
    pub(crate) fn new(packets: Vec<SavedPacket>, session: S) -> Self {
        Self { format: FORMAT, packets, session }
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
