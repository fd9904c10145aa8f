//! The saved state of the device's channel ([`vmbus_host::Device::save`]). A restore checks all of
//! it. The pixels are part of the machine's memory, not of this state.

use serde::{Deserialize, Serialize};
use vmbus_device::{SavedFormError, SavedPacket, parse_saved};

use crate::protocol::{Rejected, SavedSession};

/// The version of the format. A restore accepts no other. Must be incremented with every change of
/// the types here.
const FORMAT: u32 = 1;

/// Maximum bytes of a state: a full outbox of acknowledgements.
const MAX_BYTES: usize = 4 << 20;

/// The saved state of the open channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedChannel {
    format: u32,
    /// Packets to the guest that are not in its ring yet, oldest first.
    pub(crate) packets: Vec<SavedPacket>,
    pub(crate) session: SavedSession,
}

/// The error of a saved state that is invalid or belongs to another device.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    #[error("the saved state of the video device cannot be used: {0}")]
    Form(#[from] SavedFormError),
    #[error("the saved state of the video device is not of this device: {0}")]
    Session(#[from] Rejected),
    #[error("video memory cannot be where it was: {0}")]
    Place(#[from] crate::memory::PlaceError),
}

impl SavedChannel {
    pub(crate) fn new(packets: Vec<SavedPacket>, session: SavedSession) -> Self {
        Self { format: FORMAT, packets, session }
    }

    /// Serialises the state. `None`: serialisation failed.
    pub(crate) fn to_bytes(&self) -> Option<Vec<u8>> {
        serde_json::to_vec(self).ok()
    }

    /// Parses a state.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, RestoreError> {
        Ok(parse_saved(bytes, FORMAT, MAX_BYTES)?)
    }
}
