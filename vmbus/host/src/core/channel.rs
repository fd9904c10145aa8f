//! Channels: their offers, states and relids.

use std::collections::BTreeMap;

#[cfg(feature = "serde")]
use serde::{Deserialize, Serialize};
use vmbus_protocol::limits::MAX_CHANNELS;
use vmbus_protocol::num::usize_of;

use super::offer::Offer;

/// Identifies a channel for the life of the bus; relids change with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelKey(pub(super) u32);

/// The state of a channel, for reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelState {
    /// The guest does not know the channel.
    Unoffered,
    /// Offered and closed.
    Closed,
    /// The device's open is in progress.
    Opening,
    /// In use.
    Open,
    /// Open for the guest, but its device has closed it (corrupt ring).
    Faulted,
    /// The device is closing it.
    Closing,
    /// The device has closed it, and a view is still mapped.
    Draining,
    /// Rescinded, and not released by the guest yet.
    Revoked,
    /// Released by the guest without a rescind.
    Released,
}

/// A guest's request to open a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
pub(crate) struct OpenRequest {
    pub(super) open_id: u32,
    pub(super) ring_gpadl: u32,
    pub(super) target_vp: u32,
    pub(super) downstream_page: u32,
    #[cfg_attr(feature = "serde", serde(with = "super::serde_with::user_data"))]
    pub(super) user_data: [u8; 120],
}

/// The pending close reason: the channel's next state when its device has closed it. A later,
/// stronger reason replaces a weaker one ([`AfterClose::and_then`]), and a CLOSE cancels a queued
/// OPEN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
pub(crate) enum AfterClose {
    /// The channel is closed and can be opened again.
    Offered,
    /// The channel is opened again: the guest sent an OPEN before the device had closed it.
    Reopen(OpenRequest),
    /// The host rescinds the channel.
    Revoke,
    /// The guest has released the channel.
    Release,
    /// The connection is reset.
    Reset,
}

impl AfterClose {
    const fn strength(&self) -> u8 {
        match self {
            Self::Offered => 0,
            Self::Reopen(_) => 1,
            Self::Revoke => 2,
            // The guest does not know a channel that it has released, and would never answer a
            // RESCIND.
            Self::Release => 3,
            Self::Reset => 4,
        }
    }

    /// Returns the reason in force after `later` is added.
    pub(super) fn and_then(self, later: Self) -> Self {
        if later.strength() >= self.strength() { later } else { self }
    }
}

/// The next state of a channel after its last view has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
pub(crate) enum AfterDrain {
    /// RESCIND is sent.
    Rescind,
    /// The relid is free.
    Release,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
pub(crate) enum Phase {
    Unoffered,
    Offered,
    /// The device's open is in progress. `abort`: the open was cancelled, and this follows the
    /// device's answer. A CLOSE that cancels an OPEN answers it immediately.
    Opening {
        request: OpenRequest,
        abort: Option<AfterClose>,
    },
    /// `served`: the device still holds the rings.
    Open {
        request: OpenRequest,
        served: bool,
    },
    Closing {
        then: AfterClose,
    },
    Draining {
        then: AfterDrain,
    },
    Revoked,
    Released,
}

#[derive(Clone, Debug)]
pub(super) struct Channel {
    pub(super) key: ChannelKey,
    pub(super) offer: Offer,
    /// The primary channel of a subchannel.
    pub(super) primary: Option<ChannelKey>,
    pub(super) subchannel: u16,
    pub(super) phase: Phase,
    /// Channel number, 1..=2047, while the guest knows the channel.
    pub(super) relid: Option<u32>,
    /// The channel is removed once the guest has released it.
    pub(super) remove: bool,
    /// The channel is offered again once the guest has released it.
    pub(super) reoffer: bool,
    /// The channel has a device. After a restore some saved devices may be missing.
    pub(super) present: bool,
    /// Number of subchannels that the device asked for while it serves this primary.
    pub(super) wanted_subchannels: u16,
}

impl Channel {
    pub(super) fn state(&self) -> ChannelState {
        match self.phase {
            Phase::Unoffered => ChannelState::Unoffered,
            Phase::Offered => ChannelState::Closed,
            Phase::Opening { .. } => ChannelState::Opening,
            Phase::Open { served: true, .. } => ChannelState::Open,
            Phase::Open { served: false, .. } => ChannelState::Faulted,
            Phase::Closing { .. } => ChannelState::Closing,
            Phase::Draining { .. } => ChannelState::Draining,
            Phase::Revoked => ChannelState::Revoked,
            Phase::Released => ChannelState::Released,
        }
    }

    /// Returns true if a device may access the rings.
    pub(super) fn has_device(&self) -> bool {
        matches!(
            self.phase,
            Phase::Opening { .. } | Phase::Open { served: true, .. } | Phase::Closing { .. }
        )
    }
}

/// All channels, and the relids of the current connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Channels {
    all: BTreeMap<ChannelKey, Channel>,
    /// Index is the relid; 0 is never used.
    by_relid: Vec<Option<ChannelKey>>,
    next_key: u32,
}

impl Channels {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn get(&self, key: ChannelKey) -> Option<&Channel> {
        self.all.get(&key)
    }

    pub(super) fn get_mut(&mut self, key: ChannelKey) -> Option<&mut Channel> {
        self.all.get_mut(&key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Channel> {
        self.all.values()
    }

    pub(super) fn key_of(&self, relid: u32) -> Option<ChannelKey> {
        self.by_relid.get(usize_of(relid)).copied().flatten()
    }

    pub(super) fn by_relid(&self, relid: u32) -> Option<&Channel> {
        self.get(self.key_of(relid)?)
    }

    pub(super) fn keys(&self) -> Vec<ChannelKey> {
        self.all.keys().copied().collect()
    }

    pub(super) fn subchannels_of(&self, primary: ChannelKey) -> Vec<ChannelKey> {
        self.all
            .values()
            .filter(|channel| channel.primary == Some(primary))
            .map(|channel| channel.key)
            .collect()
    }

    pub(super) fn insert(
        &mut self,
        offer: Offer,
        primary: Option<ChannelKey>,
        subchannel: u16,
    ) -> ChannelKey {
        // A guest would need centuries for 2^32 channels. Keys in use are skipped nevertheless.
        while self.all.contains_key(&ChannelKey(self.next_key)) {
            self.next_key = self.next_key.wrapping_add(1);
        }
        let key = ChannelKey(self.next_key);
        self.next_key = self.next_key.wrapping_add(1);
        let channel = Channel {
            key,
            offer,
            primary,
            subchannel,
            phase: Phase::Unoffered,
            relid: None,
            remove: false,
            reoffer: false,
            present: true,
            wanted_subchannels: 0,
        };
        self.all.insert(key, channel);
        key
    }

    pub(super) fn remove(&mut self, key: ChannelKey) {
        self.all.remove(&key);
    }

    /// Assigns the lowest free relid to the channel.
    pub(super) fn assign_relid(&mut self, key: ChannelKey) -> Option<u32> {
        if self.by_relid.is_empty() {
            self.by_relid.push(None);
        }
        let free = self
            .by_relid
            .iter()
            .skip(1)
            .position(Option::is_none)
            .map(|index| index.saturating_add(1));
        let index = free.unwrap_or(self.by_relid.len());
        if index > MAX_CHANNELS {
            return None;
        }
        let relid = u32::try_from(index).ok()?;
        match self.by_relid.get_mut(index) {
            Some(place) => *place = Some(key),
            None => self.by_relid.push(Some(key)),
        }
        self.get_mut(key)?.relid = Some(relid);
        Some(relid)
    }

    /// Assigns `relid` to the channel. Returns false if it is invalid or in use.
    pub(super) fn claim_relid(&mut self, key: ChannelKey, relid: u32) -> bool {
        let index = usize_of(relid);
        if index == 0 || index > MAX_CHANNELS {
            return false;
        }
        if self.by_relid.len() <= index {
            self.by_relid.resize(index.saturating_add(1), None);
        }
        let (Some(place @ None), Some(channel)) =
            (self.by_relid.get_mut(index), self.all.get_mut(&key))
        else {
            return false;
        };
        *place = Some(key);
        channel.relid = Some(relid);
        true
    }

    /// Frees the channel's relid and returns it.
    pub(super) fn free_relid(&mut self, key: ChannelKey) -> Option<u32> {
        let relid = self.get_mut(key)?.relid.take()?;
        if let Some(place) = self.by_relid.get_mut(usize_of(relid)) {
            *place = None;
        }
        Some(relid)
    }
}
