//! The saved state of a card's channels, with which another process can serve the same guest
//! ([`vmbus_host::Device::save`]).
//!
//! These types describe the serialised bytes only; a restore checks all of them. Rings and buffers,
//! with the packets and frames in them, are part of guest memory.

use serde::{Deserialize, Serialize};
use vmbus_device::{SavedForm, SavedFormError, SavedPacket};

use crate::protocol::nvsp::SavedSession;
use crate::protocol::oid::Statistics;
use crate::protocol::rndis::SavedControl;
use crate::protocol::sub_allocations::{self, InvalidShare};

/// The form of one channel's state. Its format must be incremented with every change of the types
/// here. The maximum is above the size with all sub-allocations in use.
const FORM: SavedForm = SavedForm::new(2, 32 << 20);

/// Maximum number of packets that wait for space in a ring: a full outbox, and one for each
/// sub-allocation.
const MAX_PACKETS: usize = 1 << 17;

/// The saved state of one open channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedChannel {
    format: u32,
    /// Packets to the guest that are not in its ring yet, oldest first.
    pub(crate) packets: Vec<SavedPacket>,
    /// Completions that came on other channels and were not taken yet.
    pub(crate) returns: Vec<u64>,
    pub(crate) state: SavedState,
}

/// The handler's part of a saved channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedState {
    /// Packets with frames that the guest has not completed. `None`: the channel receives none.
    pub(crate) frames: Option<Vec<SavedFrames>>,
    /// The completion of a message that waited for the backend. The frames that it had left are
    /// lost, as any network may lose frames.
    pub(crate) lost: Option<SavedPacket>,
    /// The state that all channels share. Only the primary channel has it.
    pub(crate) primary: Option<Box<SavedPrimary>>,
}

/// A saved packet with frames that the guest has not completed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedFrames {
    pub(crate) packet: sub_allocations::SavedPacket,
    /// The channel that it went to.
    pub(crate) channel: u16,
}

/// The state of a card's connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedPrimary {
    pub(crate) session: SavedSession,
    pub(crate) control: SavedControl,
    /// GPADLs of the buffers that are in use.
    pub(crate) receive_gpadl: Option<u32>,
    pub(crate) send_gpadl: Option<u32>,
    /// Channels in use, those that receive frames, and those that are to receive frames when the
    /// receive buffer is idle.
    pub(crate) channels: u16,
    pub(crate) readers: u16,
    pub(crate) next_readers: Option<u16>,
    /// Packets with control messages that the guest has not completed.
    pub(crate) messages: Vec<sub_allocations::SavedPacket>,
    pub(crate) is_table_sent: bool,
    /// The state of the link that the guest knows. `None`: it has not initialised the card.
    pub(crate) reported_link: Option<bool>,
    /// The transaction id of a request to revoke the receive buffer, which is not completed yet.
    pub(crate) revocation: Option<u64>,
    /// The totals of all channels.
    pub(crate) statistics: Statistics,
}

/// The error of a saved state that is invalid or belongs to another card.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RestoreError {
    #[error("the saved state of the card cannot be used: {0}")]
    Form(#[from] SavedFormError),
    #[error("the saved state of the card is damaged: {0}")]
    Damaged(&'static str),
    #[error("the saved state of the card is damaged: {0}")]
    Share(#[from] InvalidShare),
    #[error("the card is not the one that was saved: {0}")]
    Card(String),
}

impl SavedChannel {
    pub(crate) fn new(packets: Vec<SavedPacket>, returns: Vec<u64>, state: SavedState) -> Self {
        Self { format: FORM.format(), packets, returns, state }
    }

    /// Serialises the state. `None`: serialisation failed.
    pub(crate) fn to_bytes(&self) -> Option<Vec<u8>> {
        FORM.to_bytes(self)
    }

    /// Parses and validates a state. `is_primary`: the channel is the primary one.
    pub(crate) fn from_bytes(bytes: &[u8], is_primary: bool) -> Result<Self, RestoreError> {
        let saved: Self = FORM.parse(bytes)?;
        if saved.packets.len() > MAX_PACKETS || saved.returns.len() > MAX_PACKETS {
            return Err(RestoreError::Damaged("it has too many packets"));
        }
        if saved.state.primary.is_some() != is_primary {
            return Err(RestoreError::Damaged("it belongs to another channel"));
        }
        Ok(saved)
    }
}
