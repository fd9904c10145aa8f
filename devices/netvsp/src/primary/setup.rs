//! Set-up of a connection: buffers, channels, and the configuration that follows from them.

use std::sync::Arc;

use synthvm_net::Offloads as Available;
use vmbus_gpadl::{GpadlView, ReadWrite};

use super::PrimaryHandler;
use crate::config::{Config, ReceiveBuffer};
use crate::packet::NetPacket;
use crate::protocol::limits::ETHERNET_HEADER;
use crate::protocol::nvsp::{BufferRequest, Effect, Gpadl};
use crate::protocol::oid::Offloads;
use crate::protocol::rndis::Stage;
use crate::protocol::sub_allocations::Partition;
use crate::receiver::MAX_PACKET_FRAMES;
use crate::transmitter::{Outbox, Request};

impl PrimaryHandler {
    pub(super) fn apply(&mut self, request: Request, effect: Effect, outbox: &mut Outbox) {
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

    /// Changes the configuration, and uses it from now on.
    pub(super) fn publish(&mut self, change: impl FnOnce(&mut Config)) {
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
    pub(super) fn publish_settings(&mut self) {
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
    pub(super) fn select_offloads(&mut self, enabled: Option<Offloads>) {
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

    fn map_receive_buffer(&mut self, request: Request, buffer: BufferRequest, outbox: &mut Outbox) {
        let view = self.channel.map_gpadl(buffer.gpadl, ReadWrite).ok();
        let (message, geometry) = self.session.complete_receive_buffer(view.as_ref().map(shape));
        if let Some((view, geometry)) = view.zip(geometry) {
            let partition = Partition::new(geometry, self.config.readers);
            self.receive_gpadl = Some(buffer.gpadl);
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
        self.send_gpadl = Some(buffer.gpadl);
        self.publish(|config| config.send_buffer = layout.zip(view));
        request.answer(NetPacket::message(message), outbox);
    }

    pub(super) fn revoke_receive_buffer(&mut self, request: Request) {
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
    pub(super) fn complete_revocation(&mut self, outbox: &mut Outbox) {
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

    pub(super) fn divide_when_idle(&mut self) {
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
