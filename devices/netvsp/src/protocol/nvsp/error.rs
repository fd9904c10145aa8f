//! Reasons for which a channel stops.

use super::guest_message::TooShort;

/// A violation of the protocol after which the channel must stop. The host processes no more
/// packets of the channel; the guest recovers by closing it (netvsc section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A message ends before its last field.
    #[error(transparent)]
    TooShort(#[from] TooShort),
    /// A message that a session accepts once came again.
    #[error("{0} was sent twice")]
    Repeated(&'static str),
    /// A message came before INIT succeeded.
    #[error("message {0} was sent before INIT")]
    NotInitialized(u32),
    /// The receive buffer came before NDIS_CONFIG.
    #[error("the receive buffer was sent before NDIS_CONFIG")]
    NoNdisConfig,
    /// An RNDIS packet came before the receive buffer.
    #[error("an RNDIS packet was sent before the receive buffer")]
    NoReceiveBuffer,
    /// A subchannel carried a message that belongs on the primary channel.
    #[error("message {0} was sent on a subchannel")]
    OnSubchannel(u32),
}
