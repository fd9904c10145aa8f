//! The device.

use std::sync::Arc;

use synthvm_net::{Backend, Offloads as Available};
use vmbus_device::{WorkerOptions, Workers};
use vmbus_host::{Channel, Device, Offer, OpenError};
use vmbus_protocol::{Guid, guid};

use crate::handler::NetHandler;
use crate::protocol::MacAddress;
use crate::protocol::oid::{CardProperties, Directions, Offloads};

/// A user's options for a network card.
#[derive(Clone, Debug)]
pub struct CardOptions {
    /// Names the card among all of the machine. The guest keeps its settings by it, so it must be
    /// the same on every boot.
    pub instance: Guid,
    /// The card's permanent address.
    pub address: MacAddress,
    /// A name for the guest's user. Linux makes it the interface's alias. May be empty.
    pub name: String,
    /// The threads of the card's channels.
    pub workers: WorkerOptions,
}

/// A network card of one channel.
#[derive(Debug)]
pub struct NetworkCard {
    offer: Offer,
    properties: CardProperties,
    backend: Arc<dyn Backend>,
    workers: Workers,
}

impl NetworkCard {
    /// Returns a card whose frames go to `backend` and come from it.
    ///
    /// It offers the transmit offloads that the backend has. Wrap a backend without any in
    /// [`synthvm_net::software::SoftwareOffload`].
    pub fn new(options: CardOptions, backend: Arc<dyn Backend>) -> Self {
        let CardOptions { instance, address, name, workers } = options;
        let offloads = offloads(backend.offloads());
        Self {
            offer: Offer::new(guid::class::NETWORK, instance, 0),
            properties: CardProperties {
                address,
                name,
                max_channels: 1,
                offloads,
                may_change_address: true,
            },
            backend,
            workers: Workers::new("net", workers),
        }
    }
}

impl Device for NetworkCard {
    fn offer(&self) -> Offer {
        self.offer.clone()
    }

    fn open(&mut self, channel: Channel) -> Result<(), OpenError> {
        let queue = self.backend.queue(0)?;
        let backend = Arc::clone(&self.backend);
        let handler = NetHandler::new(channel.handle(), backend, queue, self.properties.clone());
        Ok(self.workers.start(channel, handler)?)
    }

    fn pause(&mut self) {
        self.workers.pause();
    }

    fn resume(&mut self) {
        self.workers.resume();
    }
}

/// Returns the card's offloads over a backend that has `available`.
fn offloads(available: Available) -> Offloads {
    let transmit = available.contains(Available::TRANSMIT_CHECKSUM);
    let sums = Directions { transmit, receive: false };
    Offloads {
        ipv4: sums,
        tcp4: sums,
        udp4: sums,
        tcp6: sums,
        udp6: sums,
        segment4: available.contains(Available::TSO4),
        segment6: available.contains(Available::TSO6),
        coalesce4: false,
        coalesce6: false,
    }
}
