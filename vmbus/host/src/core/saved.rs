//! The saved state of a paused bus, so that another one can continue over the same guest memory
//! (kmcl.md 3.4, vmbus-core 11).
//!
//! Ring positions are not part of it: they lie in guest memory. The state that a device needs to
//! continue serving an open channel is its own ([`Device::save`](crate::Device::save)), and carried
//! along as bytes.

#[cfg(feature = "serde")]
use serde::{Deserialize, Serialize};
use thiserror::Error;
use vmbus_protocol::Guid;

use super::channel::Phase;
use super::connection::Connection;
use crate::synic::QueuedMessage;

/// The format that this code writes, and the only one that it reads. Increment it with every change
/// to a type of this crate that derives `Serialize`.
pub const FORMAT: u32 = 1;

/// A saved bus. It is opaque: [`VmBus::save`](crate::VmBus::save) makes it and
/// [`VmBus::restore`](crate::VmBus::restore) uses it. Any serde format that names fields and
/// variants can store it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(deny_unknown_fields))]
pub struct SavedBus {
    pub(crate) format: u32,
    pub(crate) connection: Connection,
    /// Primaries before their subchannels.
    pub(crate) channels: Vec<SavedChannel>,
    pub(crate) gpadls: Vec<SavedGpadl>,
    /// In order: messages for the guest that are not in a slot yet.
    pub(crate) messages: Vec<QueuedMessage>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(deny_unknown_fields))]
pub(crate) struct SavedChannel {
    #[cfg_attr(feature = "serde", serde(with = "super::serde_with::guid"))]
    pub(crate) class: Guid,
    /// Identifies the device in both buses.
    #[cfg_attr(feature = "serde", serde(with = "super::serde_with::guid"))]
    pub(crate) instance: Guid,
    pub(crate) subchannel: u16,
    pub(crate) relid: Option<u32>,
    pub(crate) phase: Phase,
    pub(crate) remove: bool,
    pub(crate) reoffer: bool,
    pub(crate) wanted_subchannels: u16,
    /// The device's state of an open channel. Without it the channel is closed and offered again.
    pub(crate) device: Option<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(deny_unknown_fields))]
pub(crate) struct SavedGpadl {
    pub(crate) relid: u32,
    pub(crate) id: u32,
    pub(crate) ranges: u16,
    /// Range data as on the wire, as far as it was received.
    pub(crate) words: Vec<u64>,
    pub(crate) state: SavedGpadlState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(deny_unknown_fields))]
pub(crate) enum SavedGpadlState {
    /// `bytes` were declared.
    Arriving { bytes: u16 },
    /// `going`: a teardown waits for views; `answer`: the guest waits for it.
    Accepted { charged: usize, read_only: bool, going: bool, answer: bool },
}

/// The error of saving a bus.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SaveError {
    /// The bus is not paused: state that changes cannot be saved.
    #[error("the bus is running: pause it first")]
    Running,
}

/// The error of restoring a bus. The bus is unchanged then.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestoreError {
    /// Written by another version of this program.
    #[error("the saved bus has format {0}, this program reads only {FORMAT}")]
    Format(u32),
    /// A guest has made contact already.
    #[error("a bus can be restored only before any guest made contact with it")]
    NotFresh,
    /// The machine has fewer VPs than the one that was saved.
    #[error("the saved bus names VP {0}, which this machine does not have")]
    Vp(u32),
    /// The same instance is a device of another class here.
    #[error("device {0} was of another class when the bus was saved")]
    Class(Guid),
    /// A channel contradicts itself or another one.
    #[error("the saved bus is damaged: channel {instance}, subchannel {subchannel}: {why}")]
    Channel {
        /// The device.
        instance: Guid,
        /// 0 for the primary.
        subchannel: u16,
        /// The contradiction.
        why: &'static str,
    },
    /// A GPADL is not one, or its pages are not memory of this machine.
    #[error(
        "the saved bus is damaged, or guest memory is not the same: GPADL {id:#x} of channel \
        {relid}: {why}"
    )]
    Gpadl {
        /// Channel.
        relid: u32,
        /// Handle.
        id: u32,
        /// The contradiction.
        why: &'static str,
    },
    /// A queued message is not valid.
    #[error("the saved bus is damaged: a queued message of {len} bytes for SINT {sint}")]
    Message {
        /// SINT.
        sint: u8,
        /// Bytes.
        len: usize,
    },
}
