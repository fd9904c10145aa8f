//! A channel of messages: requests with one answer, and messages from the host at any time.

use alloc::vec::Vec;
use core::time::Duration;

use vmbus_client::{ChannelFlags, ChannelId, Client, PacketObject, Platform, Received, SendFlags};
use vmbus_protocol::Guid;

use crate::error::DisplayError;

/// Pages of each ring, control page included.
const RING_PAGES: usize = 5;

/// Time that the host may take for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An open channel of messages.
#[derive(Debug)]
pub(crate) struct Messages {
    channel: ChannelId,
}

impl Messages {
    /// Opens the channel of the device `instance`. `max_message`: the most bytes of a message in
    /// either direction.
    pub(crate) fn open<P: Platform>(
        client: &mut Client<P>,
        (class, instance): (Guid, Guid),
        is_pipe: bool,
        max_message: usize,
    ) -> Result<Self, DisplayError> {
        let id = client.allocate();
        let mut channel = client.channel(id);
        channel.init_set_target_pnp(class, Some(instance))?;
        channel.init_set_ring_buffer_page_count(RING_PAGES, RING_PAGES)?;
        channel.init_set_maximum_packet_size(max_message)?;
        if is_pipe {
            channel.init_set_flags(ChannelFlags::IS_PIPE)?;
        }
        channel.enable()?;
        client.wait_for_open(id)?;
        Ok(Self { channel: id })
    }

    /// Sends a message. It is queued if the ring is full.
    pub(crate) fn send<P: Platform>(
        &self,
        client: &mut Client<P>,
        message: &[u8],
    ) -> Result<(), DisplayError> {
        let packet = PacketObject::new();
        client.channel(self.channel).send(packet, message, None, SendFlags::empty())?;
        Ok(())
    }

    /// Takes the next message that the host has sent.
    pub(crate) fn receive<P: Platform>(&self, client: &mut Client<P>) -> Option<Vec<u8>> {
        client.poll();
        let mut channel = client.channel(self.channel);
        let Received { payload, completion, .. } = channel.receive()?;
        // If the channel is closing, the host needs no completion.
        let _ = channel.packet_complete(completion, &[]);
        Some(payload)
    }

    /// Returns the next message that `take` accepts. Other messages are dropped.
    pub(crate) fn wait<P: Platform, T>(
        &self,
        client: &mut Client<P>,
        mut take: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<T, DisplayError> {
        let end = client.platform().now().saturating_add(TIMEOUT);
        loop {
            while let Some(message) = self.receive(client) {
                if let Some(taken) = take(&message) {
                    return Ok(taken);
                }
            }
            if let Some(error) = client.channel(self.channel).failure() {
                return Err(error.into());
            }
            let now = client.platform().now();
            if now >= end {
                return Err(DisplayError::TimedOut);
            }
            client.platform().wait_at_most(end.saturating_sub(now));
        }
    }

    /// Closes the channel.
    pub(crate) fn close<P: Platform>(&self, client: &mut Client<P>) {
        let mut channel = client.channel(self.channel);
        // A channel that cannot be closed is closed with the bus.
        let _ = channel.disable();
        let _ = channel.cleanup();
    }
}
