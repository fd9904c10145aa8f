//! Socket connections: requests of the guest and their ends (vmbus-core 4.7, hvsock-vpci A2, A5).

use vmbus_protocol::message::{MessageType, TlConnectRequest, TlConnectResult};
use vmbus_protocol::offer::status;
use vmbus_protocol::{Guid, MessageBuffer, Version};
use zerocopy::little_endian::U32;

use super::channel::ChannelKey;
use super::{Action, Core, Outcome};

/// A guest's request for a connection to a service of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectRequest {
    /// The guest's end, which the guest has chosen.
    pub endpoint: Guid,
    /// The service.
    pub service: Guid,
}

impl Core {
    /// Makes [`Action::Connect`] of the guest's requests for connections from now on. Before this
    /// call, each is refused.
    pub fn accept_connects(&mut self) {
        self.accepts_connects = true;
    }

    /// Tells the guest that a connection is refused. From 4.1 on there is a message for it; older
    /// guests, and Linux, find out by their own timeout.
    pub fn refuse_connect(&mut self, request: ConnectRequest) {
        let has_message = |version| version >= MessageType::TlConnectResult.since();
        if !self.connection.version().is_some_and(has_message) {
            return;
        }
        let body = TlConnectResult {
            endpoint: request.endpoint,
            service: request.service,
            status: U32::new(status::CONNECTION_REFUSED),
        };
        self.post(MessageBuffer::new(MessageType::TlConnectResult, &body));
    }

    pub(super) fn tl_connect(&mut self, request: &TlConnectRequest) -> Outcome {
        let request = ConnectRequest { endpoint: request.endpoint, service: request.service };
        if self.accepts_connects {
            self.out.push(Action::Connect(request));
        } else {
            self.refuse_connect(request);
        }
        Ok(())
    }

    /// Returns true if the guest takes offers of connections now.
    pub(super) fn knows_sockets(&self) -> bool {
        let since = MessageType::TlConnectRequest.since();
        self.connection.offers_requested()
            && self.connection.version().is_some_and(|version: Version| version >= since)
    }

    /// Rescinds a channel that one of its ends has closed, if it is a socket connection: the guest
    /// waits for that without a time limit (hvsock-vpci A5).
    pub(super) fn end_socket(&mut self, key: ChannelKey) {
        if self.channels.get(key).is_some_and(|channel| channel.offer.is_socket()) {
            self.revoke(key, true);
        }
    }
}
