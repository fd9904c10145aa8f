//! Reasons for which a channel stops.

use vmbus_ring::PacketKind;

use crate::protocol::nvsp::ProtocolError;

/// A violation of the protocol after which the worker stops serving the channel. The guest may
/// close the channel and open it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChannelError {
    /// The packet has a kind that guests do not send.
    #[error("packets of kind {0:?} are not valid from a guest")]
    Kind(PacketKind),
    /// The packet's message breaks the protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}
