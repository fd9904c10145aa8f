//! Control messages of the primary channel: from the guest's memory to the answer.

use std::sync::Arc;

use crate::config::{Config, ReceiveBuffer};
use crate::packet::{HeaderPool, NetPacket};
use crate::protocol::limits::MAX_CONTROL_MESSAGE;
use crate::protocol::nvsp::{ChannelType, HostMessage, NvspStatus, RndisPacket};
use crate::protocol::oid::{Connection, Link, Statistics};
use crate::protocol::rndis::{Control, ControlEffect, ControlMessage};
use crate::protocol::sub_allocations::{Owner, SavedPacket, Share};
use crate::transmitter::{Outbox, Request, Transmitter};

use vmbus_ring::TransferRange;

/// The control plane of a card, and the sub-allocations for its messages.
pub(crate) struct ControlPlane {
    pub(crate) control: Control,
    /// The receive buffer, and the share of control messages.
    messages: Option<(Arc<ReceiveBuffer>, Share)>,
    headers: HeaderPool,
    /// Kept for its memory.
    message: Vec<u8>,
}

impl ControlPlane {
    /// Returns a control plane without receive buffer.
    pub(crate) fn new(control: Control, headers: HeaderPool) -> Self {
        Self { control, messages: None, headers, message: Vec::new() }
    }

    /// Uses another receive buffer, or another division of the same one, of which the control
    /// messages' part is the same.
    pub(crate) fn set_buffer(&mut self, buffer: Option<Arc<ReceiveBuffer>>) {
        self.messages = match (buffer, self.messages.take()) {
            (None, _) => None,
            (Some(buffer), Some((_, share))) => Some((buffer, share)),
            (Some(buffer), None) => {
                let share = Share::new(buffer.partition, Owner::Control);
                Some((buffer, share))
            }
        };
    }

    /// Uses a restored receive buffer.
    pub(crate) fn restore_buffer(&mut self, buffer: Arc<ReceiveBuffer>, share: Share) {
        self.messages = Some((buffer, share));
    }

    /// Returns the packets that the guest has not completed.
    pub(crate) fn save(&self) -> Vec<SavedPacket> {
        self.messages.as_ref().map(|(_, share)| share.save()).unwrap_or_default()
    }

    /// Returns true if an answer and an indication can be sent.
    #[inline]
    pub(crate) fn has_space(&self) -> bool {
        self.messages.as_ref().is_none_or(|(_, share)| share.available() >= 2)
    }

    /// Takes a completion of the guest. One that completes nothing changes nothing.
    pub(crate) fn complete(&mut self, transaction: u64) {
        if let Some((_, share)) = &mut self.messages {
            let _ = share.complete(transaction);
        }
    }

    /// Handles the control message of `packet`: completes the packet, then sends the answer. A
    /// guest that has not completed enough of the earlier answers is told that the host is busy.
    pub(crate) fn handle(
        &mut self,
        request: Request,
        packet: RndisPacket,
        transmitter: &Transmitter,
        config: &Config,
        (connection, link, statistics): (&Connection, Link, &Statistics),
        outbox: &mut Outbox,
    ) -> ControlEffect {
        // The completions that free space are behind this message in the ring, so it cannot wait.
        if !self.has_space() {
            request.complete(NvspStatus::Busy, config, outbox);
            return ControlEffect::None;
        }
        if !self.copy(packet, transmitter, config) {
            request.complete(NvspStatus::Failure, config, outbox);
            return ControlEffect::None;
        }
        let outcome = self.control.handle(&self.message, connection, link, statistics);
        request.complete(outcome.status, config, outbox);
        for message in outcome.answer.iter().chain(&outcome.indication) {
            self.send(message, config, outbox);
        }
        outcome.effect
    }

    /// Sends a control message. It is dropped if there is no space, which callers prevent.
    pub(crate) fn send(&mut self, message: &ControlMessage, config: &Config, outbox: &mut Outbox) {
        let (Some(version), Some((buffer, share))) = (config.version, &mut self.messages) else {
            return;
        };
        let Some(sub_allocation) = share.reserve() else { return };
        let (offset, bytes) = (buffer.offset(sub_allocation), message.bytes());
        // In bounds: the longest control message fits the smallest sub-allocation.
        let written = buffer.view.write(offset as usize, bytes);
        let range = TransferRange { byte_count: bytes.len() as u32, byte_offset: offset };
        match (written, share.send(&[sub_allocation])) {
            (Ok(()), Ok(id)) => {
                let nvsp = HostMessage::rndis_packet(version, ChannelType::Control);
                let packet = NetPacket::transfer(&nvsp, buffer.id, &[range], &self.headers);
                outbox.request(id.word(), packet);
            }
            (Err(_), Ok(id)) => _ = share.complete(id.word()),
            (_, Err(_)) => _ = share.cancel(sub_allocation),
        }
    }

    /// Copies a control message. Returns false if it cannot be answered, or is longer than any.
    fn copy(&mut self, packet: RndisPacket, transmitter: &Transmitter, config: &Config) -> bool {
        let Some(message) = transmitter.message(config, packet) else { return false };
        let length = message.len().unwrap_or(u32::MAX) as usize;
        if self.messages.is_none() || length > MAX_CONTROL_MESSAGE {
            return false;
        }
        self.message.clear();
        self.message.resize(length, 0);
        message.copy_to(0, &mut self.message)
    }
}
