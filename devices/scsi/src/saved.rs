//! The saved state of a logical unit, so that another process can resume with the same disks.
//!
//! The fields are plain numbers: a state is checked against the unit before any of it is taken
//! over.

use serde::{Deserialize, Serialize};

/// The state of a logical unit that its image does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub enum SavedUnit {
    /// Of a disk.
    Disk(SavedDisk),
    /// Of a DVD drive.
    Dvd(SavedTray),
}

/// State of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedDisk {
    pub(crate) block_size: u32,
    pub(crate) blocks: u64,
    pub(crate) read_only: bool,
    pub(crate) write_cache: bool,
    /// A unit attention is due: the guest has not heard of the size.
    pub(crate) capacity_changed: bool,
    pub(crate) reservations: SavedReservations,
}

/// Persistent reservations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedReservations {
    pub(crate) generation: u32,
    /// 0: nobody is registered.
    pub(crate) key: u64,
    /// The type of the reservation.
    pub(crate) held: Option<u8>,
}

/// State of a DVD drive's tray.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedTray {
    /// Of the disc in it.
    pub(crate) blocks: Option<u32>,
    pub(crate) is_open: bool,
    /// Bits of PREVENT ALLOW MEDIUM REMOVAL.
    pub(crate) prevent: u8,
    pub(crate) event: SavedEvent,
}

/// An event of the disc that the guest has not been told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SavedEvent {
    None,
    EjectRequest,
    NewMedia,
    Removal,
    Exchange,
}
