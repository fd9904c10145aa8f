//! The handler of a subchannel: frames and nothing else.

use std::os::fd::RawFd;

use vmbus_device::{ChannelHandler, Completed};
use vmbus_ring::Packet;

use crate::data_path::{DataPath, MAX_PAYLOAD, Taken};
use crate::error::ChannelError;
use crate::packet::NetPacket;
use crate::protocol::nvsp::{NvspStatus, RndisPacket, handle_subchannel};
use crate::saved::SavedState;
use crate::transmitter::Outbox;

/// The state of a subchannel.
pub(crate) struct SubchannelHandler {
    data: DataPath,
}

impl SubchannelHandler {
    /// Returns the handler of a subchannel that the guest has opened.
    pub(crate) fn new(data: DataPath) -> Self {
        Self { data }
    }
}

impl ChannelHandler for SubchannelHandler {
    type Payload = NetPacket;
    type Error = ChannelError;
    type State = SavedState;

    #[inline]
    fn begin_round(&mut self, _: &mut Outbox) {
        self.data.begin_round();
    }

    #[inline]
    fn may_take(&self) -> bool {
        self.data.transmitter.is_free()
    }

    #[inline]
    fn packet(&mut self, packet: &Packet<'_>, outbox: &mut Outbox) -> Result<(), ChannelError> {
        // The guest may send as soon as the primary channel has answered it.
        self.data.refresh();
        let Taken::Request(request) = self.data.take_packet(packet)? else { return Ok(()) };
        if self.data.config().receive_buffer.is_some()
            && let Some(frames) = packet.read().and_then(|first| RndisPacket::frames(&first))
        {
            self.data.send(request, frames, outbox);
            return Ok(());
        }
        let mut bytes = [0; MAX_PAYLOAD];
        let length = packet.read_payload(&mut bytes);
        match handle_subchannel(&bytes[..length])? {
            Some(message) if self.data.config().receive_buffer.is_some() => {
                self.data.send(request, message, outbox);
            }
            _ => request.complete(NvspStatus::Failure, self.data.config(), outbox),
        }
        Ok(())
    }

    #[inline]
    fn end_batch(&mut self) {
        self.data.end_batch();
    }

    #[inline]
    fn complete(&mut self, outbox: &mut Outbox) -> Completed {
        self.data.progress(outbox, |_| {})
    }

    fn events(&self, events: &mut Vec<RawFd>) {
        self.data.events(events);
    }

    #[inline]
    fn backlog(&self) -> usize {
        self.data.backlog()
    }

    /// Received frames are not delayed, and frames that a full backend refused neither.
    fn urgent_events(&self, events: &mut Vec<RawFd>) {
        self.events(events);
    }

    fn quiesce(&self) -> Option<SavedState> {
        Some(self.data.save())
    }
}
