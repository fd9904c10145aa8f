//! The saved state of a service's channel ([`vmbus_host::Device::save`]). A restore checks all of
//! it. Requests of clients are not saved: their clients are gone.

use serde::{Deserialize, Serialize};
use vmbus_device::SavedForm;

use crate::protocol::SavedSession;

/// The form of a channel's state. Its format must be incremented with every change of the types
/// here. The maximum is a few waiting packets as lists of numbers.
pub(crate) const FORM: SavedForm = SavedForm::new(1, 1 << 20);

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
