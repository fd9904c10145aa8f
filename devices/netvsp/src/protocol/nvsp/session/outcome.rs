//! Decisions about messages.

use super::super::guest_message::RndisPacket;
use super::super::host_message::HostMessage;
#[cfg(doc)]
use super::Session;

/// The decision about one message. Apply the effect, then send the completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The completion of the message's packet.
    pub completion: Completion,
    /// The change that the message asks for.
    pub effect: Effect,
}

/// The completion of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// No completion now: the packet requests none, or the effect leads to it.
    None,
    /// A completion without payload.
    Empty,
    /// A completion with this payload.
    Message(HostMessage),
}

/// The change that a message asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// No change outside the session.
    None,
    /// Map a GPADL, then call [`Session::complete_receive_buffer`].
    MapReceiveBuffer(BufferRequest),
    /// Map a GPADL, then call [`Session::complete_send_buffer`].
    MapSendBuffer(BufferRequest),
    /// Stop receiving and unmap the receive buffer; the host must not write to it any more.
    ReceiveBufferRevoked,
    /// Unmap the send buffer; the host must not read it any more.
    SendBufferRevoked,
    /// Offer this many subchannels, with indices from 1. May be 0.
    OfferSubchannels(u16),
    /// Move the guest's frames to this path. Without a virtual function nothing moves, but
    /// the completion is sent: Linux waits for it without a timeout.
    SwitchDataPath(DataPath),
    /// Process an RNDIS message, then complete its packet with
    /// [`HostMessage::rndis_complete`] if it requests a completion.
    Rndis(RndisPacket),
}

/// A request to map a buffer of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferRequest {
    /// Number of the GPADL on the card's primary channel.
    pub gpadl: u32,
    /// The guest's number for the buffer. Transfer-page packets name the receive buffer by it.
    pub id: u16,
    /// The packet requests a completion.
    pub wants_completion: bool,
}

/// The path of the guest's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataPath {
    /// The channels of this card.
    Synthetic,
    /// The virtual function that is associated with this card.
    VirtualFunction,
}
