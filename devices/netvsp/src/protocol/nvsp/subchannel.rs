//! Subchannels carry frames and nothing else (netvsc section 8).

use super::error::ProtocolError;
use super::guest_message::{ChannelType, GuestMessage, RndisPacket};

/// Judges the payload of one packet of a subchannel. `None`: a control message or an unknown
/// channel type; the packet must be completed with a failure.
///
/// # Errors
/// The message is too short, or it belongs on the primary channel. The subchannel must stop.
pub fn handle_subchannel(payload: &[u8]) -> Result<Option<RndisPacket>, ProtocolError> {
    match GuestMessage::parse(payload)? {
        GuestMessage::Rndis(packet) => {
            Ok((packet.channel_type == ChannelType::Data).then_some(packet))
        }
        message => Err(ProtocolError::OnSubchannel(message.kind())),
    }
}
