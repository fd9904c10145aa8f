//! The protocol state machine of one channel: packet in, action out.

use std::sync::Arc;

use synthvm_storvsc::{Header, Properties, Version, VersionPayload, operation as op};
use zerocopy::FromBytes;

use super::completion::Completion;
use super::limits::MAX_TRANSFER;
use super::negotiation::{Negotiation, Stage};
use super::reply::Reply;
use super::srb::Srb;
use super::status::NtStatus;

/// The action that follows from a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send the reply.
    Reply(Reply),
    /// Initialisation has ended: send the reply, and wake the subchannels.
    Ready(Reply),
    /// Send the reply, and make the bus offer subchannels until there are `total`.
    OfferSubchannels {
        /// The completion.
        reply: Reply,
        /// Number of subchannels, at most the controller's limit.
        total: u16,
    },
    /// Execute a command.
    Execute(Srb),
    /// Complete a request that was refused.
    Complete(Completion),
    /// Send the reply after all earlier requests of this channel.
    Reset(Reply),
}

/// A packet that cannot be answered. The runtime closes the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The packet is shorter than a header.
    #[error("a packet of {0} bytes is shorter than the 12-byte header")]
    TooShort(usize),
}

/// One channel's protocol state.
#[derive(Debug)]
pub struct Session {
    negotiation: Arc<Negotiation>,
    is_primary: bool,
    max_subchannels: u16,
}

impl Session {
    /// Returns the session of a primary channel, which restarts `negotiation`, or of a subchannel.
    /// `max_subchannels`: maximum number of subchannels that the guest may ask for.
    pub fn new(negotiation: Arc<Negotiation>, is_primary: bool, max_subchannels: u16) -> Self {
        if is_primary {
            negotiation.restart();
        }
        Self { negotiation, is_primary, max_subchannels }
    }

    /// Returns the session of a restored channel.
    pub(crate) fn restored(
        negotiation: Arc<Negotiation>,
        is_primary: bool,
        max_subchannels: u16,
    ) -> Self {
        Self { negotiation, is_primary, max_subchannels }
    }

    /// Returns the state shared with the other channels.
    pub fn negotiation(&self) -> &Negotiation {
        &self.negotiation
    }

    /// Returns true if the worker may read packets from the ring. A subchannel's worker must wait
    /// until the primary is ready.
    pub fn may_read(&self) -> bool {
        self.is_primary || self.negotiation.is_ready()
    }

    /// Handles one packet. `buffer_length`: bytes of guest memory that the packet describes.
    ///
    /// # Errors
    /// The packet has no header.
    pub fn handle(&mut self, packet: &[u8], buffer_length: usize) -> Result<Action, Malformed> {
        let Ok((header, payload)) = Header::read_from_prefix(packet) else {
            return Err(Malformed::TooShort(packet.len()));
        };
        let length = packet.len();
        let operation = header.operation.get();
        // The most frequent operation first.
        if operation == op::EXECUTE_SRB {
            return Ok(self.execute(payload, length, buffer_length));
        }
        let stage = self.negotiation.stage();
        Ok(match (operation, stage) {
            (op::RESET_LUN | op::RESET_ADAPTER | op::RESET_BUS, Stage::Ready) => {
                Action::Reset(Reply::status(length, NtStatus::Success))
            }
            _ if !self.is_primary => Self::out_of_order(length),
            (op::BEGIN_INITIALIZATION, Stage::Begin) => self.step(length, Stage::Version),
            (op::QUERY_PROTOCOL_VERSION, Stage::Version) => self.query_version(payload, length),
            (op::QUERY_PROPERTIES, Stage::Properties) => self.query_properties(length),
            (op::CREATE_SUB_CHANNELS, Stage::End | Stage::Ready) => {
                self.create_subchannels(payload, length)
            }
            (op::END_INITIALIZATION, Stage::End) => {
                self.negotiation.set_stage(Stage::Ready);
                Action::Ready(Reply::status(length, NtStatus::Success))
            }
            _ => Self::out_of_order(length),
        })
    }

    fn execute(&self, payload: &[u8], length: usize, buffer_length: usize) -> Action {
        if !self.negotiation.is_ready() {
            return Self::out_of_order(length);
        }
        if length < Srb::SHORTEST {
            return Action::Reply(Reply::status(length, NtStatus::InvalidParameter));
        }
        match Srb::parse(payload, length, buffer_length) {
            Ok(srb) => Action::Execute(srb),
            Err(completion) => Action::Complete(completion),
        }
    }

    fn step(&self, length: usize, next: Stage) -> Action {
        self.negotiation.set_stage(next);
        Action::Reply(Reply::status(length, NtStatus::Success))
    }

    fn query_version(&self, payload: &[u8], length: usize) -> Action {
        let Ok((asked, _)) = VersionPayload::read_from_prefix(payload) else {
            return Action::Reply(Reply::status(length, NtStatus::InvalidParameter));
        };
        let status = match Version::from_number(asked.version.get()) {
            Some(version) => {
                self.negotiation.set_version(version);
                self.negotiation.set_stage(Stage::Properties);
                NtStatus::Success
            }
            // The guest then tries the next lower version.
            None => NtStatus::RevisionMismatch,
        };
        let echo = VersionPayload { version: asked.version, revision: 0.into() };
        Action::Reply(Reply::with_payload(length, status, &echo))
    }

    fn query_properties(&self, length: usize) -> Action {
        let subchannels = self.subchannel_limit();
        let properties = Properties {
            max_channel_count: subchannels.into(),
            flags: if subchannels > 0 { Properties::SUPPORTS_MULTI_CHANNEL } else { 0 }.into(),
            max_transfer_bytes: MAX_TRANSFER.into(),
            ..Properties::default()
        };
        self.negotiation.set_stage(Stage::End);
        Action::Reply(Reply::with_payload(length, NtStatus::Success, &properties))
    }

    fn create_subchannels(&self, payload: &[u8], length: usize) -> Action {
        let total = payload.first_chunk().map(|bytes| u16::from_le_bytes(*bytes));
        match total {
            Some(total) if total <= self.subchannel_limit() => {
                Action::OfferSubchannels { reply: Reply::status(length, NtStatus::Success), total }
            }
            _ => Action::Reply(Reply::status(length, NtStatus::InvalidParameter)),
        }
    }

    fn subchannel_limit(&self) -> u16 {
        match self.negotiation.version() {
            Some(version) if version.has_subchannels() => self.max_subchannels,
            _ => 0,
        }
    }

    /// Refuses an unknown operation, or one that the stage does not allow. The state stays as it
    /// is.
    fn out_of_order(length: usize) -> Action {
        Action::Reply(Reply::status(length, NtStatus::InvalidDeviceState))
    }
}
