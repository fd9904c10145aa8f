//! The bus as a state machine: events in, actions out, no I/O, no thread, no clock.
//!
//! Tests can play every order of events against it. It has access to guest RAM (to check page
//! numbers) and to the sink that is notified of dropped views.

mod action;
mod channel;
mod connection;
mod contact;
mod gpadls;
mod lifecycle;
mod messages;
mod offer;
mod offers;
mod restore;
mod save;
pub mod saved;
#[cfg(feature = "serde")]
mod serde_with;
mod sockets;
mod state;

use std::sync::Arc;

use vmbus_gpadl::{GpadlKey, GuestRam, ReleaseSink};
use vmbus_protocol::message::{GuestMessage, MessageType, ParseError};
use vmbus_protocol::offer::{MESSAGE_CONNECTION_ID, MESSAGE_CONNECTION_ID_MULTICLIENT};
use vmbus_protocol::{MessageBuffer, Version};

pub use action::{Action, OpenParams};
pub use channel::{ChannelKey, ChannelState};
pub use connection::ConnectionState;
pub use offer::{Offer, OfferError};
pub use save::Place;
pub use sockets::ConnectRequest;
pub use state::{ChannelReport, GpadlReport, MessageCounts, Snapshot};

use channel::Channels;
use connection::Connection;
use gpadls::Gpadls;

/// The reason why an event was ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// The message is not one that a guest may send.
    Malformed(ParseError),
    /// The connection id does not exist.
    Connection(u32),
    /// The guest is not connected, and the message needs a connection.
    Disconnected,
    /// The negotiated version does not have the message.
    Version(MessageType),
    /// No channel has this relid.
    Channel(u32),
    /// The message is invalid in the channel's state.
    ChannelState(u32),
    /// The GPADL does not exist, or the message is invalid in its state.
    Gpadl(u32),
    /// The target VP does not exist.
    Vp(u32),
    /// A second REQUESTOFFERS.
    Repeated,
}

/// The outcome of one event.
pub type Outcome = Result<(), Ignored>;

/// The state machine. See the module's comment.
#[derive(Debug)]
pub struct Core {
    vp_count: u32,
    connection: Connection,
    channels: Channels,
    gpadls: Gpadls,
    counts: MessageCounts,
    /// The shell connects guests to services.
    accepts_connects: bool,
    out: Vec<Action>,
}

impl Core {
    /// Returns a bus without devices, for a machine with VPs `0..vp_count`. `sink` is notified of
    /// the last view of a GPADL that is being torn down.
    #[must_use]
    pub fn new(ram: GuestRam, vp_count: u32, sink: Arc<dyn ReleaseSink>) -> Self {
        Self {
            vp_count,
            connection: Connection::default(),
            channels: Channels::default(),
            gpadls: Gpadls::new(ram, sink),
            counts: MessageCounts::default(),
            accepts_connects: false,
            out: Vec::new(),
        }
    }

    /// Moves the shell's next actions to `into`, in order. Call it after every event until there
    /// are none.
    pub fn take_actions(&mut self, into: &mut Vec<Action>) {
        into.append(&mut self.out);
    }

    /// Handles a channel message posted by the guest on `connection_id`: exactly its payload, a
    /// private copy.
    ///
    /// # Errors
    /// The reason why it was ignored, for logs and tests: the guest has done nothing that needs an
    /// answer.
    pub fn message(&mut self, connection_id: u32, payload: &[u8]) -> Outcome {
        self.counts.received = self.counts.received.wrapping_add(1);
        let outcome = self.dispatch(connection_id, payload);
        if outcome.is_err() {
            self.counts.ignored = self.counts.ignored.wrapping_add(1);
        }
        outcome
    }

    fn dispatch(&mut self, connection_id: u32, payload: &[u8]) -> Outcome {
        if !matches!(connection_id, MESSAGE_CONNECTION_ID | MESSAGE_CONNECTION_ID_MULTICLIENT) {
            return Err(Ignored::Connection(connection_id));
        }
        let message = GuestMessage::parse(payload).map_err(Ignored::Malformed)?;
        match message {
            GuestMessage::InitiateContact(contact) => self.initiate_contact(connection_id, contact),
            GuestMessage::Unload => self.unload(),
            GuestMessage::CloseReservedChannel(request) => {
                let kind = MessageType::CloseReservedChannel;
                match self.connection.version() {
                    // The answer does not exist before 4.0, so no such guest could read it.
                    Some(version) if version < kind.since() => Err(Ignored::Version(kind)),
                    Some(_) | None => self.close_reserved(request),
                }
            }
            message => match self.connection.version() {
                Some(version) => self.connected_message(version, &message),
                None => Err(Ignored::Disconnected),
            },
        }
    }

    fn connected_message(&mut self, version: Version, message: &GuestMessage<'_>) -> Outcome {
        let since = |kind: MessageType| {
            if version >= kind.since() { Ok(()) } else { Err(Ignored::Version(kind)) }
        };
        match message {
            GuestMessage::RequestOffers => self.request_offers(),
            GuestMessage::OpenChannel(request) => self.open_channel(request),
            GuestMessage::CloseChannel(relid) => self.close_channel(*relid),
            GuestMessage::GpadlHeader(header, data) => self.gpadl_header(header, data),
            GuestMessage::GpadlBody(gpadl, data) => self.gpadl_body(*gpadl, data),
            GuestMessage::GpadlTeardown(request) => self.gpadl_teardown(request),
            GuestMessage::RelidReleased(relid) => self.relid_released(*relid),
            GuestMessage::OpenReservedChannel(request) => {
                since(MessageType::OpenReservedChannel)?;
                self.open_reserved(request)
            }
            GuestMessage::TlConnectRequest(request) => {
                since(MessageType::TlConnectRequest)?;
                self.tl_connect(request)
            }
            GuestMessage::ModifyChannel(request) => {
                since(MessageType::ModifyChannel)?;
                self.modify_channel(version, request)
            }
            // Features of 6.0 that this host never grants.
            GuestMessage::ModifyConnection => Err(Ignored::Version(MessageType::ModifyConnection)),
            GuestMessage::Pause => Err(Ignored::Version(MessageType::Pause)),
            GuestMessage::Resume => Err(Ignored::Version(MessageType::Resume)),
            // Valid in any state: handled before.
            GuestMessage::InitiateContact(_)
            | GuestMessage::Unload
            | GuestMessage::CloseReservedChannel(_) => Err(Ignored::Repeated),
        }
    }

    /// Adds a device. It is offered immediately if a guest has asked for offers, otherwise when one
    /// does.
    ///
    /// # Errors
    /// [`OfferError`]: instance in use, or no channel left.
    pub fn offer(&mut self, offer: Offer) -> Result<ChannelKey, OfferError> {
        self.add_offer(offer)
    }

    /// Removes a device. [`Action::Removed`] follows when nothing of it is left.
    pub fn rescind(&mut self, key: ChannelKey) {
        self.revoke_with_subchannels(key, true);
    }

    /// Makes subchannels 1..=`total` of primary `key` exist, as its device asks; more are offered,
    /// none is removed.
    pub fn offer_subchannels(&mut self, key: ChannelKey, total: u16) {
        self.add_subchannels(key, total);
    }

    /// Reports that [`Action::Open`] was carried out: the device took the channel, or refused it.
    pub fn opened(&mut self, key: ChannelKey, accepted: bool) {
        self.device_opened(key, accepted);
    }

    /// Reports that the device has closed the channel, after [`Action::Close`] or on its own (a
    /// fault).
    pub fn closed(&mut self, key: ChannelKey) {
        self.device_closed(key);
    }

    /// Reports that the last view of a GPADL that is being torn down was dropped.
    pub fn gpadl_released(&mut self, key: GpadlKey) {
        self.view_released(key);
    }

    /// Resets the core without answers to the guest, as the machine restarts. [`Action::Quiesced`]
    /// follows when no device touches guest memory any more.
    pub fn reset(&mut self) {
        self.begin_reset(connection::AfterReset::Nothing);
    }

    /// Queues a message for the connection's VP.
    fn post(&mut self, message: MessageBuffer) {
        let (vp, sint) = self.connection.target();
        self.post_to(vp, sint, message);
    }

    fn post_to(&mut self, vp: u32, sint: u8, message: MessageBuffer) {
        self.counts.sent = self.counts.sent.wrapping_add(1);
        self.out.push(Action::Post { vp, sint, message });
    }
}
