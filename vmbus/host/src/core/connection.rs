//! The connection: the guest's contact, and the reset between two connections.

#[cfg(feature = "serde")]
use serde::{Deserialize, Serialize};
use vmbus_protocol::Version;
use vmbus_protocol::offer::VMBUS_SINT;

/// The state of the connection, as a guest sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// No guest has made contact, or the last one left.
    Disconnected,
    /// A guest made contact or left, and devices are still releasing the old connection's memory.
    Resetting,
    /// A guest is connected.
    Connected,
}

/// The action after a complete reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
pub(crate) enum AfterReset {
    /// The machine starts again.
    Nothing,
    /// Answer UNLOAD.
    Unload,
    /// Answer INITIATE_CONTACT.
    Contact(Contact),
}

/// A checked INITIATE_CONTACT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
pub(crate) struct Contact {
    pub(super) verdict: Verdict,
    /// VP of all later messages.
    pub(super) vp: u32,
    /// Connection id of the contact: the one to use from 5.0 on.
    pub(super) connection_id: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
pub(crate) enum Verdict {
    Accepted(#[cfg_attr(feature = "serde", serde(with = "super::serde_with::version"))] Version),
    /// A version that this host does not speak.
    Unsupported,
    /// A version it speaks, with invalid monitor pages.
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
pub(crate) struct Connection {
    state: State,
    /// VP of the last contact: UNLOAD is answered there even if no guest is connected.
    vp: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
enum State {
    Disconnected,
    Resetting(AfterReset),
    Connected {
        #[cfg_attr(feature = "serde", serde(with = "super::serde_with::version"))]
        version: Version,
        offers_requested: bool,
    },
}

impl Default for Connection {
    fn default() -> Self {
        Self { state: State::Disconnected, vp: 0 }
    }
}

impl Connection {
    pub(super) fn state(&self) -> ConnectionState {
        match self.state {
            State::Disconnected => ConnectionState::Disconnected,
            State::Resetting(_) => ConnectionState::Resetting,
            State::Connected { .. } => ConnectionState::Connected,
        }
    }

    /// Returns the version, when connected.
    pub(super) fn version(&self) -> Option<Version> {
        match self.state {
            State::Connected { version, .. } => Some(version),
            State::Disconnected | State::Resetting(_) => None,
        }
    }

    /// Returns (VP, SINT) of all messages.
    pub(super) fn target(&self) -> (u32, u8) {
        (self.vp, VMBUS_SINT)
    }

    /// Returns every VP of the connection's state.
    pub(super) fn vps(&self) -> impl Iterator<Item = u32> {
        let next = match self.state {
            State::Resetting(AfterReset::Contact(contact)) => Some(contact.vp),
            State::Resetting(AfterReset::Nothing | AfterReset::Unload)
            | State::Disconnected
            | State::Connected { .. } => None,
        };
        std::iter::once(self.vp).chain(next)
    }

    /// Returns whether the guest has its offers: later ones are sent immediately.
    pub(super) fn offers_requested(&self) -> bool {
        matches!(self.state, State::Connected { offers_requested: true, .. })
    }

    /// Marks the offers as requested. Returns false if they were before.
    pub(super) fn request_offers(&mut self) -> bool {
        match &mut self.state {
            State::Connected { offers_requested, .. } => !std::mem::replace(offers_requested, true),
            State::Disconnected | State::Resetting(_) => false,
        }
    }

    /// Sets the action after the reset. It replaces an earlier action, as the guest that requested
    /// that one has left.
    pub(super) fn begin_reset(&mut self, then: AfterReset) {
        self.state = State::Resetting(then);
    }

    /// Ends the reset and returns the action after it.
    pub(super) fn end_reset(&mut self) -> Option<AfterReset> {
        match self.state {
            State::Resetting(then) => {
                self.state = State::Disconnected;
                Some(then)
            }
            State::Disconnected | State::Connected { .. } => None,
        }
    }

    pub(super) fn set_vp(&mut self, vp: u32) {
        self.vp = vp;
    }

    pub(super) fn connect(&mut self, version: Version) {
        self.state = State::Connected { version, offers_requested: false };
    }
}
