//! The control plane of a card: control message in, answer and change out (netvsc section 6).

mod saved;

use serde::{Deserialize, Serialize};

use super::super::MacAddress;
use super::super::nvsp::NvspStatus;
use super::super::oid::{
    self, CardProperties, Change, Connection, Link, OffloadRevision, Settings, Statistics,
};
use super::control_message::ControlMessage;
use super::control_request::ControlRequest;
use super::status::RndisStatus;

pub use saved::{InvalidControl, SavedControl};

/// The control plane of a card, from the opening of its primary channel to the closing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    stage: Stage,
    properties: CardProperties,
    settings: Settings,
}

/// State of the RNDIS connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// INITIALIZE has not come: nothing else is answered with success.
    New,
    /// The guest sets up the card and uses it.
    Initialized,
    /// The guest sent HALT: no frame may be received.
    Halted,
}

/// The decision about one control message: apply the effect, complete the packet, then send the
/// answer and after it the indication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlOutcome {
    /// Status of the packet's completion.
    pub status: NvspStatus,
    /// The answer.
    pub answer: Option<ControlMessage>,
    /// A further message.
    pub indication: Option<ControlMessage>,
    /// The change that the message made.
    pub effect: ControlEffect,
}

/// The change that a control message made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlEffect {
    /// None.
    None,
    /// The connection is initialised: indications may be sent.
    Initialized,
    /// The connection has ended: reception must stop.
    Halted,
    /// The settings changed.
    Changed(Change),
}

impl Control {
    /// Creates the control plane of a card whose channel was opened. `current`: the card's current
    /// address, which outlives a connection.
    pub fn new(properties: CardProperties, current: MacAddress) -> Self {
        let settings = Settings::new(&properties, current);
        Self { stage: Stage::New, properties, settings }
    }

    /// Judges a copy of one control message of the primary channel. Subchannels must not carry
    /// control messages. `statistics`: the totals of all channels.
    ///
    /// Refuse the message instead while fewer than two sub-allocations for control messages are
    /// free: then answers need no queue, and a guest cannot make the host keep many.
    pub fn handle(
        &mut self,
        message: &[u8],
        connection: &Connection,
        link: Link,
        statistics: &Statistics,
    ) -> ControlOutcome {
        let Ok(request) = ControlRequest::parse(message) else {
            return ControlOutcome::refused();
        };
        match request {
            ControlRequest::Initialize { id, major } => self.initialize(id, major),
            ControlRequest::Halt => self.halt(),
            ControlRequest::Query { id, oid } => {
                let answer = self.require_initialized().and_then(|()| {
                    oid::query(oid, &self.properties, &self.settings, connection, link, statistics)
                });
                ControlOutcome::answered(ControlMessage::query_complete(id, &answer))
            }
            ControlRequest::Set { id, oid, data } => self.set(id, oid, data, connection),
            ControlRequest::Reset => ControlOutcome::answered(ControlMessage::reset_refused()),
            ControlRequest::Keepalive { id } => {
                ControlOutcome::answered(ControlMessage::keepalive_complete(id))
            }
        }
    }

    /// Returns the state of the connection.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Returns the values that the guest has set.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns the properties of the card.
    pub fn properties(&self) -> &CardProperties {
        &self.properties
    }

    fn initialize(&mut self, id: u32, major: u32) -> ControlOutcome {
        const MAJOR: u32 = 1;
        let status = match self.stage {
            Stage::Initialized => RndisStatus::Failure,
            Stage::New | Stage::Halted if major != MAJOR => RndisStatus::BadVersion,
            Stage::New | Stage::Halted => RndisStatus::Success,
        };
        let outcome = ControlOutcome::answered(ControlMessage::initialize_complete(id, status));
        if status != RndisStatus::Success {
            return outcome;
        }
        self.stage = Stage::Initialized;
        ControlOutcome { effect: ControlEffect::Initialized, ..outcome }
    }

    fn halt(&mut self) -> ControlOutcome {
        self.stage = Stage::Halted;
        self.settings = Settings::new(&self.properties, self.settings.filter.current);
        ControlOutcome {
            status: NvspStatus::Success,
            answer: None,
            indication: None,
            effect: ControlEffect::Halted,
        }
    }

    fn set(
        &mut self,
        id: u32,
        oid: u32,
        data: Option<&[u8]>,
        connection: &Connection,
    ) -> ControlOutcome {
        let change = self.require_initialized().and_then(|()| {
            let data = data.ok_or(RndisStatus::InvalidData)?;
            oid::set(oid, data, &self.properties, &mut self.settings, connection)
        });
        let status = change.err().unwrap_or(RndisStatus::Success);
        let effect = change.map_or(ControlEffect::None, ControlEffect::Changed);
        let revision = OffloadRevision::of(connection.ndis_version);
        let indication = revision
            .filter(|_| change == Ok(Change::Offloads))
            .map(|revision| ControlMessage::offload_config(self.settings.offloads, revision));
        let outcome = ControlOutcome::answered(ControlMessage::set_complete(id, status));
        ControlOutcome { indication, effect, ..outcome }
    }

    fn require_initialized(&self) -> Result<(), RndisStatus> {
        match self.stage {
            Stage::Initialized => Ok(()),
            Stage::New | Stage::Halted => Err(RndisStatus::Failure),
        }
    }
}

impl ControlOutcome {
    fn answered(answer: ControlMessage) -> Self {
        Self {
            status: NvspStatus::Success,
            answer: Some(answer),
            indication: None,
            effect: ControlEffect::None,
        }
    }

    fn refused() -> Self {
        Self {
            status: NvspStatus::InvalidRndisPacket,
            answer: None,
            indication: None,
            effect: ControlEffect::None,
        }
    }
}
