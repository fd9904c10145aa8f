//! What is written down of a controller whose machine stands still, so that another process can go
//! on with the same disks ([`vmbus_host::Device::save`]).
//!
//! Nothing live is in here: these types are what the bytes mean, and judged before anything of it
//! is believed. Rings, and so requests that were not taken, lie in guest memory; requests that were
//! taken are finished before anything is written down.

use serde::{Deserialize, Serialize};
use synthvm_scsi::SavedUnit;
use vmbus_device::SavedPacket;

use crate::protocol::{MAX_LUNS, MAX_PACKET, Stage, Version};

/// The format that this code writes and the only one it reads. Count it up with every change to the
/// types here.
const FORMAT: u32 = 1;

/// Most bytes of one channel's state: more than all that [`MAX_PACKETS`] and the most disks come
/// to.
const MAX_BYTES: usize = 4 << 20;

/// Most packets that wait for space in a ring: a full outbox, and all requests in flight.
const MAX_PACKETS: usize = 4096;

/// One open channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedChannel {
    format: u32,
    /// Oldest first: for the guest, and not yet in its ring.
    pub(crate) packets: Vec<SavedPacket>,
    /// Whether the guest has to be told of disks that came or went; `None`: it has not looked yet.
    pub(crate) news: Option<bool>,
    /// The state that all channels share: in the primary's part only.
    pub(crate) controller: Option<SavedController>,
}

/// The stage of the protocol, and the disks' state that is not in their images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedController {
    /// Of initialisation: 0 to 4.
    pub(crate) stage: u8,
    /// The agreed version's word; 0 before there is one.
    pub(crate) version: u16,
    pub(crate) units: Vec<SavedLun>,
}

/// A logical unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedLun {
    pub(crate) lun: u8,
    /// Identifies the unit. A guest asks for its identity once, so a restored unit must have the
    /// same.
    pub(crate) serial: String,
    pub(crate) kind: SavedUnit,
}

/// A saved state is none, or not of this controller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RestoreError {
    #[error("the saved state of the controller has format {0}, this program reads only {FORMAT}")]
    Format(u32),
    #[error("the saved state of the controller is damaged: {0}")]
    Damaged(&'static str),
    /// A guest asks for these once, and relies on them.
    #[error("LUN {lun} is not the disk that was saved: {why}")]
    Disk { lun: u8, why: &'static str },
}

impl SavedChannel {
    pub(crate) fn new(
        packets: Vec<SavedPacket>,
        news: Option<bool>,
        controller: Option<SavedController>,
    ) -> Self {
        Self { format: FORMAT, packets, news, controller }
    }

    /// `None`: there is no memory for it.
    pub(crate) fn to_bytes(&self) -> Option<Vec<u8>> {
        serde_json::to_vec(self).ok()
    }

    /// Reads and judges it; `is_primary` as the bus says.
    pub(crate) fn from_bytes(bytes: &[u8], is_primary: bool) -> Result<Self, RestoreError> {
        /// Looked at first: the rest of another format may be anything.
        #[derive(Deserialize)]
        struct Begin {
            format: u32,
        }
        if bytes.len() > MAX_BYTES {
            return Err(RestoreError::Damaged("it is too long"));
        }
        let garbled = |_| RestoreError::Damaged("it cannot be read");
        let Begin { format } = serde_json::from_slice(bytes).map_err(garbled)?;
        if format != FORMAT {
            return Err(RestoreError::Format(format));
        }
        let saved: Self = serde_json::from_slice(bytes).map_err(garbled)?;
        saved.check(is_primary)?;
        Ok(saved)
    }

    fn check(&self, is_primary: bool) -> Result<(), RestoreError> {
        let fits =
            |packet: &SavedPacket| !packet.bytes.is_empty() && packet.bytes.len() <= MAX_PACKET;
        if self.packets.len() > MAX_PACKETS || !self.packets.iter().all(fits) {
            return Err(RestoreError::Damaged("its packets are none"));
        }
        match &self.controller {
            Some(controller) if is_primary => controller.check(),
            None if !is_primary => Ok(()),
            _ => Err(RestoreError::Damaged("it is another channel's")),
        }
    }
}

impl SavedController {
    fn check(&self) -> Result<(), RestoreError> {
        let Some(stage) = Stage::from_number(self.stage) else {
            return Err(RestoreError::Damaged("its stage of initialisation does not exist"));
        };
        // There is a version once it was asked for, and none before.
        let has_version = Version::from_word(self.version).is_some();
        if has_version != (stage > Stage::Version) || (!has_version && self.version != 0) {
            return Err(RestoreError::Damaged(
                "its version does not go with its stage of initialisation",
            ));
        }
        let mut seen = [false; MAX_LUNS];
        for unit in &self.units {
            match seen.get_mut(usize::from(unit.lun)) {
                Some(seen) if !*seen => *seen = true,
                _ => return Err(RestoreError::Damaged("its LUNs are none, or twice there")),
            }
        }
        Ok(())
    }
}
