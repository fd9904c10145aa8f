//! The handler of a card's primary channel: set-up, control messages and frames.

mod saved;
mod setup;

use std::os::fd::RawFd;
use std::sync::{Arc, Weak};

use synthvm_net::Offloads as Available;
use vmbus_device::{ChannelHandler, Completed};
use vmbus_host::{Channel, ChannelHandle};
use vmbus_ring::Packet;

use crate::config::{Config, ReceiveBuffer};
use crate::control_plane::ControlPlane;
use crate::data_path::{CompletionOf, DataPath, MAX_PAYLOAD, Taken};
use crate::error::ChannelError;
use crate::link::LinkReporter;
use crate::packet::NetPacket;
use crate::protocol::limits::{ETHERNET_HEADER, SEND_TABLE_ENTRIES};
use crate::protocol::nvsp::{
    Capabilities, ChannelType, Completion, Effect, NvspStatus, RndisPacket, SendTableMessage,
    Session,
};
use crate::protocol::oid::Connection;
use crate::protocol::rndis::{Control, ControlEffect};
use crate::saved::SavedState;
use crate::transmitter::{Outbox, Request};

pub(crate) use self::saved::Restored;

/// The state of a primary channel.
pub(crate) struct PrimaryHandler {
    channel: ChannelHandle,
    data: DataPath,
    session: Session,
    control: ControlPlane,
    /// The configuration that is published last.
    config: Arc<Config>,
    /// Longest frame that the backend takes, in bytes with the Ethernet header.
    backend_limit: u32,
    /// The receive offloads of the backend that are in use.
    receive_offloads: Available,
    /// Subchannels that the guest asked for, not yet passed on to the bus.
    subchannels: Option<u16>,
    /// Channels among which the receive buffer is to be divided when it is idle.
    readers: Option<u16>,
    /// Openings of channels that [`PrimaryHandler::offer_send_table`] has taken into account.
    openings: u32,
    /// The guest knows the send indirection table.
    is_table_sent: bool,
    /// The completion of REVOKE_RECV_BUF, which waits until no channel uses the buffer.
    revocation: Option<(Weak<ReceiveBuffer>, u64)>,
    link: LinkReporter,
    /// Changes of the link that [`PrimaryHandler::take_link`] has taken into account.
    link_changes: u32,
    /// GPADLs of the buffers.
    receive_gpadl: Option<u32>,
    send_gpadl: Option<u32>,
}

impl ChannelHandler for PrimaryHandler {
    type Payload = NetPacket;
    type Error = ChannelError;
    type State = SavedState;

    #[inline]
    fn begin_round(&mut self, outbox: &mut Outbox) {
        self.data.begin_round();
        if self.openings != self.data.group().openings() {
            self.offer_send_table(outbox);
        }
        if self.link_changes != self.data.card().link.changes() {
            self.take_link();
        }
    }

    /// False while a message waits for the backend.
    #[inline]
    fn may_take(&self) -> bool {
        self.data.transmitter.is_free()
    }

    #[inline]
    fn packet(&mut self, packet: &Packet<'_>, outbox: &mut Outbox) -> Result<(), ChannelError> {
        let request = match self.data.take_packet(packet)? {
            Taken::Request(request) => request,
            Taken::Completion(CompletionOf::Frames) => return Ok(()),
            Taken::Completion(CompletionOf::Control) => {
                self.control.complete(packet.transaction_id());
                return Ok(());
            }
        };
        if let Some(frames) = packet.read().and_then(|first| self.session.frames(&first)) {
            self.data.send(request, frames, outbox);
            return Ok(());
        }
        let mut bytes = [0; MAX_PAYLOAD];
        let length = packet.read_payload(&mut bytes);
        let outcome = self.session.handle(&bytes[..length], request.wants_completion)?;
        let completion = match outcome.completion {
            Completion::None => None,
            Completion::Empty => Some(NetPacket::empty()),
            Completion::Message(message) => Some(NetPacket::message(message)),
        };
        match outcome.effect {
            Effect::Rndis(packet) => self.rndis(request, packet, outbox),
            // Its completion says that no channel uses the buffer any more.
            Effect::ReceiveBufferRevoked => self.revoke_receive_buffer(request),
            effect => {
                self.apply(request, effect, outbox);
                if let Some(completion) = completion {
                    outbox.complete(request.transaction_id, completion);
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn end_batch(&mut self) {
        self.data.end_batch();
    }

    #[inline]
    fn complete(&mut self, outbox: &mut Outbox) -> Completed {
        let control = &mut self.control;
        let completed = self.data.progress(outbox, |transaction| control.complete(transaction));
        if self.readers.is_some() {
            self.divide_when_idle();
        }
        if self.revocation.is_some() {
            self.complete_revocation(outbox);
        }
        if self.link.is_pending() {
            self.report_link(outbox);
        }
        completed
    }

    #[inline]
    fn delivered(&mut self, channel: &Channel) {
        // The guest must see the completion of SUBCHANNEL before the offers.
        if let Some(total) = self.subchannels.take() {
            channel.offer_subchannels(total);
        }
    }

    fn events(&self, events: &mut Vec<RawFd>) {
        self.data.events(events);
        if self.control.has_space() {
            events.extend(self.link.event());
        }
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
        Some(self.save())
    }
}

impl PrimaryHandler {
    /// Returns the handler of a channel that the guest has opened.
    pub(crate) fn new(channel: ChannelHandle, data: DataPath, link: LinkReporter) -> Self {
        let card = data.card();
        let link_changes = card.link.changes();
        let properties = card.properties.clone();
        let control = Control::new(properties, card.properties.address);
        let session = card.coalescing(Session::new(card.properties.max_channels - 1));
        let backend_limit = card.backend_limit();
        let control = ControlPlane::new(control, data.group().headers().clone());
        Self {
            channel,
            session,
            control,
            config: Arc::default(),
            backend_limit,
            receive_offloads: Available::empty(),
            subchannels: None,
            readers: None,
            openings: 0,
            is_table_sent: false,
            revocation: None,
            link,
            link_changes,
            receive_gpadl: None,
            send_gpadl: None,
            data,
        }
    }

    #[cold]
    fn take_link(&mut self) {
        self.link_changes = self.data.card().link.changes();
        self.link.note_change();
    }

    /// Sends indications of the link that are due.
    #[cold]
    fn report_link(&mut self, outbox: &mut Outbox) {
        let may_change_speed = self.session.capabilities().contains(Capabilities::TEAMING);
        while self.link.is_pending() && self.control.has_space() {
            let link = self.data.card().link();
            let Some(message) = self.link.report(link, may_change_speed) else { return };
            self.control.send(&message, &self.config, outbox);
        }
    }

    /// Sends the send indirection table once all channels are open: the guest spreads its frames
    /// over all of them.
    #[cold]
    fn offer_send_table(&mut self, outbox: &mut Outbox) {
        self.openings = self.data.group().openings();
        let channels = self.config.channels;
        if self.is_table_sent || channels == 1 || !self.data.group().are_open(channels - 1) {
            return;
        }
        let mut table = [0; SEND_TABLE_ENTRIES];
        for (index, entry) in (0..).zip(&mut table) {
            *entry = index % channels;
        }
        let message =
            self.session.version().and_then(|version| SendTableMessage::new(version, &table));
        if let Some(message) = message {
            outbox.notify(NetPacket::send_table(message));
            self.is_table_sent = true;
        }
    }

    fn rndis(&mut self, request: Request, packet: RndisPacket, outbox: &mut Outbox) {
        match packet.channel_type {
            ChannelType::Data => self.data.send(request, packet, outbox),
            ChannelType::Control => self.handle_control(request, packet, outbox),
            ChannelType::Unknown => request.complete(NvspStatus::Failure, &self.config, outbox),
        }
    }

    fn handle_control(&mut self, request: Request, packet: RndisPacket, outbox: &mut Outbox) {
        let (connection, link) = (self.connection(), self.data.card().link());
        let statistics = self.data.card().statistics();
        let transmitter = &self.data.transmitter;
        let values = (&connection, link, &statistics);
        let effect =
            self.control.handle(request, packet, transmitter, &self.config, values, outbox);
        match effect {
            ControlEffect::None => return,
            ControlEffect::Initialized => self.link.begin(link),
            ControlEffect::Halted => self.link.end(),
            ControlEffect::Changed(_) => {}
        }
        self.publish_settings();
    }

    fn connection(&self) -> Connection {
        let max_frame = self.session.max_frame().min(self.backend_limit);
        Connection {
            max_frame: max_frame.max(ETHERNET_HEADER),
            ndis_version: self.session.ndis_version(),
            channels: self.config.channels,
            may_coalesce: self.session.capabilities().contains(Capabilities::RECEIVE_COALESCING),
        }
    }
}

impl Drop for PrimaryHandler {
    fn drop(&mut self) {
        self.select_offloads(None);
    }
}
