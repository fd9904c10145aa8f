//! Offers: their choice, order and relids (vmbus-core 3.4, 4.1).

use vmbus_protocol::MessageBuffer;
use vmbus_protocol::limits::{MAX_CHANNELS, MAX_SUBCHANNELS};
use vmbus_protocol::message::{MessageType, OfferChannel};
use vmbus_protocol::offer::VMBUS_SINT;
use zerocopy::little_endian::{U16, U32};

use super::channel::{ChannelKey, Phase};
use super::offer::{Offer, OfferError};
use super::{Action, Core, Ignored, Outcome};

/// `monitor_id` of a channel without one.
const NO_MONITOR: u8 = 255;

/// Returns the connection id of a relid: the SINT above the 12 bits that relids have, so that none
/// can be taken for a message port.
pub(super) const fn connection_id(relid: u32) -> u32 {
    relid | ((VMBUS_SINT_U32) << 12)
}

const VMBUS_SINT_U32: u32 = {
    let [a, b, c, d] = [VMBUS_SINT, 0, 0, 0];
    u32::from_le_bytes([a, b, c, d])
};

impl Core {
    pub(super) fn add_offer(&mut self, offer: Offer) -> Result<ChannelKey, OfferError> {
        // Guests tell offers apart by instance alone, so it must be unique over all classes. A
        // rescinded offer counts until its relid is released. Subchannels count too: a guest may
        // release them after their primary, and knows them by the same instance until then.
        if self.channels.iter().any(|channel| channel.offer.instance == offer.instance) {
            return Err(OfferError::InstanceInUse(offer.instance));
        }
        if self.channels.len() >= MAX_CHANNELS {
            return Err(OfferError::TooMany);
        }
        if offer.is_socket() && !self.knows_sockets() {
            return Err(OfferError::NoSockets);
        }
        let key = self.channels.insert(offer, None, 0);
        if self.connection.offers_requested() {
            self.send_offer(key);
        }
        Ok(key)
    }

    pub(super) fn request_offers(&mut self) -> Outcome {
        if !self.connection.request_offers() {
            return Err(Ignored::Repeated);
        }
        self.offer_all();
        self.post(MessageBuffer::bare(MessageType::AllOffersDelivered));
        Ok(())
    }

    /// Offers each device that the guest does not know, in the order that guests rely on.
    pub(super) fn offer_all(&mut self) {
        let mut keys: Vec<_> = self
            .channels
            .iter()
            .filter(|channel| {
                channel.phase == Phase::Unoffered && channel.primary.is_none() && !channel.remove
            })
            .map(|channel| {
                (channel.offer.class, channel.offer.order, channel.offer.instance, channel.key)
            })
            .collect();
        keys.sort();
        for (_, _, _, key) in keys {
            self.send_offer(key);
        }
    }

    pub(super) fn add_subchannels(&mut self, primary: ChannelKey, total: u16) {
        let Some(channel) = self.channels.get_mut(primary) else { return };
        let open = matches!(
            channel.phase,
            Phase::Open { served: true, .. } | Phase::Opening { abort: None, .. }
        );
        if !open || channel.primary.is_some() {
            return;
        }
        let total = total.min(MAX_SUBCHANNELS).max(channel.wanted_subchannels);
        channel.wanted_subchannels = total;
        let offer = channel.offer.clone();
        let have = self.channels.subchannels_of(primary);
        for index in 1..=total {
            // A removed subchannel counts until the guest has released it. Then it is offered
            // again, if the device still asks for it.
            let exists = have.iter().any(|&key| {
                self.channels.get(key).is_some_and(|channel| channel.subchannel == index)
            });
            if exists || self.channels.len() >= MAX_CHANNELS {
                continue;
            }
            let key = self.channels.insert(offer.clone(), Some(primary), index);
            self.send_offer(key);
        }
    }

    pub(super) fn send_offer(&mut self, key: ChannelKey) {
        let Some(relid) = self.channels.assign_relid(key) else { return };
        let Some(channel) = self.channels.get_mut(key) else { return };
        channel.phase = Phase::Offered;
        let offer = &channel.offer;
        let body = OfferChannel {
            class: offer.class,
            instance: offer.instance,
            reserved: [0; 16],
            flags: U16::new(offer.flags.bits()),
            mmio_megabytes: U16::new(offer.mmio_megabytes),
            user_defined: offer.user_defined,
            sub_channel_index: U16::new(channel.subchannel),
            mmio_megabytes_optional: U16::ZERO,
            relid: U32::new(relid),
            monitor_id: NO_MONITOR,
            monitor_allocated: 0,
            dedicated_interrupt: U16::new(1),
            connection_id: U32::new(connection_id(relid)),
        };
        // A guest never repeats a signal that failed, so the id must be valid before the guest
        // knows it.
        self.out.push(Action::Bind { key, connection_id: connection_id(relid) });
        self.post(MessageBuffer::new(MessageType::OfferChannel, &body));
    }

    /// The guest no longer knows the channel: its relid and connection id are free.
    pub(super) fn unbind(&mut self, key: ChannelKey) {
        if let Some(relid) = self.channels.free_relid(key) {
            self.out.push(Action::Unbind { key, connection_id: connection_id(relid) });
        }
    }
}
