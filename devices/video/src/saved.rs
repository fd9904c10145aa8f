//! The saved state of the device's channel ([`vmbus_host::Device::save`]). A restore checks all of
//! it. The pixels are part of the machine's memory, not of this state.

use vmbus_device::{SavedForm, SavedFormError};

use crate::protocol::Rejected;

/// The form of the state. Its format must be incremented with every change of the session's types.
/// The maximum is a full outbox of acknowledgements.
pub(crate) const FORM: SavedForm = SavedForm::new(2, 4 << 20);

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
