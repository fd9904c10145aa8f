//! The handler of a card's primary channel: set-up, control messages and frames.

use std::os::fd::RawFd;
use std::sync::{Arc, Weak};

use synthvm_net::Offloads as Available;
use vmbus_device::{ChannelHandler, Completed};
use vmbus_gpadl::{GpadlView, ReadWrite};
use vmbus_host::{Channel, ChannelHandle};
use vmbus_ring::{Packet, PacketKind};

use crate::config::{Config, ReceiveBuffer};
use crate::control_plane::ControlPlane;
use crate::data_path::{CompletionOf, DataPath, MAX_PAYLOAD};
use crate::error::ChannelError;
use crate::link::LinkReporter;
use crate::packet::NetPacket;
use crate::protocol::limits::{ETHERNET_HEADER, SEND_TABLE_ENTRIES};
use crate::protocol::nvsp::{
    BufferRequest, Capabilities, ChannelType, Completion, Effect, Gpadl, NvspStatus, RndisPacket,
    SendTableMessage, Session,
};
use crate::protocol::oid::{Connection, Offloads};
use crate::protocol::rndis::{Control, ControlEffect, Stage};
use crate::protocol::sub_allocations::Partition;
use crate::receiver::MAX_PACKET_FRAMES;
use crate::transmitter::{Outbox, Request};

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
}

impl ChannelHandler for PrimaryHandler {
    type Payload = NetPacket;
    type Error = ChannelError;
    type State = ();

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

    /// A message waits for the backend, or the next control message could not be answered.
    #[inline]
    fn may_take(&self) -> bool {
        self.data.transmitter.is_free() && self.control.has_space()
    }

    #[inline]
    fn packet(&mut self, packet: &Packet<'_>, outbox: &mut Outbox) -> Result<(), ChannelError> {
        match packet.kind() {
            PacketKind::Completion => {
                if self.data.completion(packet) == CompletionOf::Control {
                    self.control.complete(packet.transaction_id());
                }
                return Ok(());
            }
            PacketKind::TransferPages => return Err(ChannelError::Kind(packet.kind())),
            PacketKind::InBand | PacketKind::GpaDirect => {}
        }
        self.data.transmitter.take_ranges(packet);
        let request = Request::of(packet);
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
}

impl PrimaryHandler {
    /// Returns the handler of a channel that the guest has opened.
    pub(crate) fn new(channel: ChannelHandle, data: DataPath, link: LinkReporter) -> Self {
        let card = data.card();
        let link_changes = card.link.changes();
        let is_link_up = card.link.is_connected();
        let properties = card.properties.clone();
        let control = Control::new(properties, card.properties.address);
        let session = Session::new(card.properties.max_channels - 1);
        let backend_limit = card.backend_limit();
        let control = ControlPlane::new(control, data.group().headers().clone());
        Self {
            channel,
            session,
            control,
            config: Arc::new(Config { is_link_up, ..Config::default() }),
            backend_limit,
            receive_offloads: Available::empty(),
            subchannels: None,
            readers: None,
            openings: 0,
            is_table_sent: false,
            revocation: None,
            link,
            link_changes,
            data,
        }
    }

    /// Changes the configuration, and uses it from now on.
    fn publish(&mut self, change: impl FnOnce(&mut Config)) {
        let mut config = Config::clone(&self.config);
        change(&mut config);
        self.config = Arc::new(config);
        self.data.group().publish(Arc::clone(&self.config));
        self.data.refresh();
        if self.config.channels > 1 {
            self.data.card().workers.kick();
        }
    }

    /// Publishes the values that follow from the session and the control plane.
    fn publish_settings(&mut self) {
        let version = self.session.version();
        let max_receive_frame = self.session.max_frame();
        let max_frame = max_receive_frame.min(self.backend_limit).max(ETHERNET_HEADER);
        let max_ranges = self.max_ranges();
        let is_ready = self.control.control.stage() == Stage::Initialized;
        let settings = is_ready.then(|| Arc::new(self.control.control.settings().clone()));
        self.select_offloads(settings.as_ref().map(|settings| settings.offloads));
        let coalesces = self.receive_offloads.contains(Available::COALESCED_RECEIVE);
        self.publish(|config| {
            config.coalesces = coalesces;
            config.version = version;
            config.max_frame = max_frame;
            config.max_receive_frame = max_receive_frame;
            config.max_ranges = max_ranges;
            config.settings = settings;
        });
    }

    /// Makes the backend use the receive offloads that the guest has `enabled` for all protocols:
    /// it does not distinguish them.
    fn select_offloads(&mut self, enabled: Option<Offloads>) {
        let wanted = enabled.map_or(Available::empty(), receive_offloads);
        let backend = &self.data.card().backend;
        let wanted = wanted & backend.offloads();
        if wanted != self.receive_offloads {
            match backend.set_receive_offloads(wanted) {
                Ok(()) => self.receive_offloads = wanted,
                Err(error) => {
                    tracing::warn!(%error, "a network backend refuses receive offloads");
                }
            }
        }
    }

    /// Returns true if the configuration has the session's values.
    fn is_published(&self) -> bool {
        self.config.version == self.session.version()
            && self.config.max_receive_frame == self.session.max_frame()
            && self.config.max_ranges == self.max_ranges()
    }

    fn max_ranges(&self) -> usize {
        self.session.ndis_version().max_ranges().min(MAX_PACKET_FRAMES)
    }

    fn apply(&mut self, request: Request, effect: Effect, outbox: &mut Outbox) {
        match effect {
            Effect::None => {
                // INIT, NDIS_CONFIG and NDIS_VERSION change the configuration without an effect.
                if !self.is_published() {
                    self.publish_settings();
                }
            }
            Effect::SwitchDataPath(_) | Effect::Rndis(_) | Effect::ReceiveBufferRevoked => {}
            Effect::OfferSubchannels(count) => self.add_channels(count),
            Effect::MapReceiveBuffer(buffer) => self.map_receive_buffer(request, buffer, outbox),
            Effect::MapSendBuffer(buffer) => self.map_send_buffer(request, buffer, outbox),
            Effect::SendBufferRevoked => self.publish(|config| config.send_buffer = None),
        }
    }

    fn map_receive_buffer(&mut self, request: Request, buffer: BufferRequest, outbox: &mut Outbox) {
        let view = self.channel.map_gpadl(buffer.gpadl, ReadWrite).ok();
        let (message, geometry) = self.session.complete_receive_buffer(view.as_ref().map(shape));
        if let Some((view, geometry)) = view.zip(geometry) {
            let partition = Partition::new(geometry, self.config.readers);
            let buffer = Arc::new(ReceiveBuffer { id: buffer.id, geometry, partition, view });
            self.set_receive_buffer(Some(buffer));
        }
        request.answer(NetPacket::message(message), outbox);
    }

    fn set_receive_buffer(&mut self, buffer: Option<Arc<ReceiveBuffer>>) {
        self.control.set_buffer(buffer.clone());
        self.publish(|config| config.receive_buffer = buffer);
    }

    fn map_send_buffer(&mut self, request: Request, buffer: BufferRequest, outbox: &mut Outbox) {
        let view = self.channel.map_gpadl(buffer.gpadl, ReadWrite).ok();
        let (message, layout) = self.session.complete_send_buffer(view.as_ref().map(shape));
        self.publish(|config| config.send_buffer = layout.zip(view));
        request.answer(NetPacket::message(message), outbox);
    }

    fn revoke_receive_buffer(&mut self, request: Request) {
        let buffer = self.config.receive_buffer.as_ref().map(Arc::downgrade).unwrap_or_default();
        self.set_receive_buffer(None);
        self.readers = None;
        self.data.set_draining(false);
        if request.wants_completion {
            self.revocation = Some((buffer, request.transaction_id));
        }
    }

    /// Completes REVOKE_RECV_BUF once no channel uses the buffer: the guest may then use its memory
    /// otherwise.
    fn complete_revocation(&mut self, outbox: &mut Outbox) {
        self.revocation.take_if(|(buffer, transaction)| {
            let is_unused = buffer.strong_count() == 0;
            if is_unused {
                outbox.complete(*transaction, NetPacket::empty());
            }
            is_unused
        });
    }

    /// Notes that the guest has asked for `count` subchannels. If they read frames themselves, each
    /// gets its part of the receive buffer when the guest has completed all packets.
    fn add_channels(&mut self, count: u16) {
        if count == 0 {
            return;
        }
        self.subchannels = Some(count);
        self.publish(|config| config.channels = count + 1);
        if !self.data.group().has_one_reader() {
            self.readers = Some(count + 1);
            self.data.set_draining(true);
            self.divide_when_idle();
        }
    }

    fn divide_when_idle(&mut self) {
        if !self.data.is_idle() {
            return;
        }
        self.data.set_draining(false);
        let Some(readers) = self.readers.take() else { return };
        let buffer = self.config.receive_buffer.as_ref().map(|old| {
            let (id, geometry, view) = (old.id, old.geometry, old.view.clone());
            let partition = Partition::new(geometry, readers);
            Arc::new(ReceiveBuffer { id, geometry, partition, view })
        });
        self.publish(|config| config.readers = readers);
        self.set_receive_buffer(buffer);
    }

    #[cold]
    fn take_link(&mut self) {
        let link = &self.data.card().link;
        self.link_changes = link.changes();
        let is_link_up = link.is_connected();
        if is_link_up != self.config.is_link_up {
            self.publish(|config| config.is_link_up = is_link_up);
        }
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
        let transmitter = &self.data.transmitter;
        let values = (&connection, link);
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

/// Returns the receive offloads for all protocols among `enabled`.
fn receive_offloads(enabled: Offloads) -> Available {
    let Offloads { tcp4, udp4, tcp6, udp6, .. } = enabled;
    if ![tcp4, udp4, tcp6, udp6].iter().all(|directions| directions.receive) {
        Available::empty()
    } else if enabled.coalesce4 && enabled.coalesce6 {
        Available::RECEIVE
    } else {
        Available::RECEIVE_CHECKSUM
    }
}

/// Returns the shape of a buffer that the guest has shared.
fn shape(view: &GpadlView) -> Gpadl {
    let byte_offset = view.range(0).map_or(0, |(offset, _)| offset as u32);
    Gpadl { ranges: view.ranges(), byte_offset, length: view.len() as u64 }
}
