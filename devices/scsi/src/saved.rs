//! The saved state of a logical unit, so that another process can resume with the same disks.
//!
//! The fields are plain numbers, because a state is checked against the unit before any of it is
//! restored.

use serde::{Deserialize, Serialize};

/// The part of a logical unit's state that its image does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub enum SavedUnit {
    /// The state of a disk.
    Disk(SavedDisk),
    /// The state of a DVD drive.
    Dvd(SavedTray),
}

/// The state of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedDisk {
    pub(crate) block_size: u32,
    pub(crate) blocks: u64,
    pub(crate) read_only: bool,
    pub(crate) write_cache: bool,
    /// A unit attention is pending: the guest does not know the size yet.
    pub(crate) capacity_changed: bool,
    pub(crate) reservations: SavedReservations,
}

/// The persistent reservations of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedReservations {
    pub(crate) generation: u32,
    /// The key of the registration. 0: not registered.
    pub(crate) key: u64,
    /// The type of the reservation.
    pub(crate) held: Option<u8>,
}

/// The state of a DVD drive's tray.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedTray {
    /// The blocks of the disc in the tray.
    pub(crate) blocks: Option<u32>,
    pub(crate) is_open: bool,
    /// The locks: bits of PREVENT ALLOW MEDIUM REMOVAL.
    pub(crate) prevent: u8,
    pub(crate) event: SavedEvent,
}

/// A disc event that is pending for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SavedEvent {
    None,
    EjectRequest,
    NewMedia,
    Removal,
    Exchange,
}
