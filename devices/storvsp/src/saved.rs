//! The saved state of a controller, with which another process can resume the same disks
//! ([`vmbus_host::Device::save`]).
//!
//! These types describe the serialised bytes only; a restore validates all of them before it
//! changes a controller. Rings, with the packets in them, are part of guest memory. All requests
//! taken from a ring are completed before a save.

use serde::{Deserialize, Serialize};
use synthvm_scsi::SavedUnit;
use vmbus_device::{SavedForm, SavedFormError, SavedPacket};

use crate::protocol::{MAX_LUNS, MAX_PACKET, Stage, Version};

/// The form of one channel's state. Its format must be incremented with every change of the types
/// here. The maximum is above the size with [`MAX_PACKETS`] packets and the maximum number of
/// disks.
const FORM: SavedForm = SavedForm::new(1, 4 << 20);

/// Maximum number of packets that wait for space in a ring: a full outbox and all requests in
/// flight.
const MAX_PACKETS: usize = 4096;

/// The saved state of one open channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedChannel {
    format: u32,
    /// Packets to the guest that are not in its ring yet, oldest first.
    pub(crate) packets: Vec<SavedPacket>,
    /// The guest must be notified of a change of the disks. `None` before initialisation ended.
    pub(crate) news: Option<bool>,
    /// The state that all channels share. Only the primary channel has it.
    pub(crate) controller: Option<SavedController>,
}

/// The saved stage of the protocol, and the state of the disks that is not in their images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedController {
    /// Stage of initialisation, 0 to 4.
    pub(crate) stage: u8,
    /// The agreed version (major << 8 | minor), or 0.
    pub(crate) version: u16,
    pub(crate) units: Vec<SavedLun>,
}

/// The saved state of a logical unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedLun {
    pub(crate) lun: u8,
    /// Identifies the unit. A guest reads the identity only once, so it must be the same after a
    /// restore.
    pub(crate) serial: String,
    pub(crate) kind: SavedUnit,
}

/// The error of a saved state that is invalid or belongs to another controller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RestoreError {
    #[error("the saved state of the controller cannot be used: {0}")]
    Form(#[from] SavedFormError),
    #[error("the saved state of the controller is damaged: {0}")]
    Damaged(&'static str),
    /// A unit differs in properties that a guest reads only once.
    #[error("LUN {lun} is not the disk that was saved: {why}")]
    Disk { lun: u8, why: &'static str },
}

impl SavedChannel {
    pub(crate) fn new(
        packets: Vec<SavedPacket>,
        news: Option<bool>,
        controller: Option<SavedController>,
    ) -> Self {
        Self { format: FORM.format(), packets, news, controller }
    }

    /// Serialises the state. `None`: serialisation failed.
    pub(crate) fn to_bytes(&self) -> Option<Vec<u8>> {
        FORM.to_bytes(self)
    }

    /// Parses and validates a state. `is_primary`: the channel is the primary one.
    pub(crate) fn from_bytes(bytes: &[u8], is_primary: bool) -> Result<Self, RestoreError> {
        let saved: Self = FORM.parse(bytes)?;
        saved.check(is_primary)?;
        Ok(saved)
    }

    fn check(&self, is_primary: bool) -> Result<(), RestoreError> {
        let fits =
            |packet: &SavedPacket| !packet.bytes.is_empty() && packet.bytes.len() <= MAX_PACKET;
        if self.packets.len() > MAX_PACKETS || !self.packets.iter().all(fits) {
            return Err(RestoreError::Damaged("it has invalid packets"));
        }
        match &self.controller {
            Some(controller) if is_primary => controller.check(),
            None if !is_primary => Ok(()),
            _ => Err(RestoreError::Damaged("it belongs to another channel")),
        }
    }
}

impl SavedController {
    fn check(&self) -> Result<(), RestoreError> {
        let Some(stage) = Stage::from_number(self.stage) else {
            return Err(RestoreError::Damaged("its stage of initialisation is invalid"));
        };
        // The version is known in exactly the stages after `Stage::Version`.
        let has_version = Version::from_number(self.version).is_some();
        if has_version != (stage > Stage::Version) || (!has_version && self.version != 0) {
            return Err(RestoreError::Damaged(
                "its version does not match its stage of initialisation",
            ));
        }
        let mut seen = [false; MAX_LUNS];
        for unit in &self.units {
            match seen.get_mut(usize::from(unit.lun)) {
                Some(seen) if !*seen => *seen = true,
                _ => return Err(RestoreError::Damaged("it has invalid or duplicate LUNs")),
            }
        }
        Ok(())
    }
}
