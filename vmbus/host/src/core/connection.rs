//! The connection: who is at the other end, and what must be done before it may go on.

use serde::{Deserialize, Serialize};
use vmbus_protocol::Version;
use vmbus_protocol::offer::VMBUS_SINT;

/// What a guest sees of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// Nobody has made contact, or the last one left.
    Disconnected,
    /// A guest made contact or left, and devices still let go of the old connection's memory.
    Resetting,
    /// A guest is connected.
    Connected,
}

/// What to do once a reset is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum AfterReset {
    /// The machine started anew.
    Nothing,
    /// Answer UNLOAD.
    Unload,
    /// Answer INITIATE_CONTACT.
    Contact(Contact),
}

/// A judged INITIATE_CONTACT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contact {
    pub(super) verdict: Verdict,
    /// VP of all later messages.
    pub(super) vp: u32,
    /// Connection id it came on: the one to go on with from 5.0 on.
    pub(super) connection_id: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Verdict {
    Accepted(#[serde(with = "crate::saved::version")] Version),
    /// A version that this host does not speak.
    Unsupported,
    /// A version it speaks, with monitor pages that make no sense.
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Connection {
    state: State,
    /// VP of the last contact: UNLOAD is answered there even when nobody is connected.
    vp: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    Disconnected,
    Resetting(AfterReset),
    Connected {
        #[serde(with = "crate::saved::version")]
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

    /// The version, when connected.
    pub(super) fn version(&self) -> Option<Version> {
        match self.state {
            State::Connected { version, .. } => Some(version),
            State::Disconnected | State::Resetting(_) => None,
        }
    }

    /// (VP, SINT) of all messages.
    pub(super) fn target(&self) -> (u32, u8) {
        (self.vp, VMBUS_SINT)
    }

    /// Every VP that it names.
    pub(super) fn vps(&self) -> impl Iterator<Item = u32> {
        let next = match self.state {
            State::Resetting(AfterReset::Contact(contact)) => Some(contact.vp),
            State::Resetting(AfterReset::Nothing | AfterReset::Unload)
            | State::Disconnected
            | State::Connected { .. } => None,
        };
        std::iter::once(self.vp).chain(next)
    }

    /// True when the guest has had its offers: later ones are sent at once.
    pub(super) fn offers_requested(&self) -> bool {
        matches!(self.state, State::Connected { offers_requested: true, .. })
    }

    /// Marks the offers as requested; false when they were before.
    pub(super) fn request_offers(&mut self) -> bool {
        match &mut self.state {
            State::Connected { offers_requested, .. } => !std::mem::replace(offers_requested, true),
            State::Disconnected | State::Resetting(_) => false,
        }
    }

    /// A later wish replaces an earlier one: whoever asked before is gone.
    pub(super) fn begin_reset(&mut self, then: AfterReset) {
        self.state = State::Resetting(then);
    }

    /// What was to follow the reset, which is thereby over.
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
