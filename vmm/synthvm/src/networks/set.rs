//! The cards on the bus.

use std::sync::Arc;

use synthvm_net::{Attachment, Backend, Capture, LinkState, QueueReport};
use synthvm_netvsp::protocol::MacAddress;
use synthvm_netvsp::{CardOptions, ChannelCounters, NetworkCard};
use vmbus_device::WorkerOptions;
use vmbus_host::VmBus;
use vmbus_protocol::Guid;

use super::NetworkError;
use super::capture::CaptureFile;
use super::open::{OpenCard, OpenNetworks};
use crate::config::instance;

/// The network cards of a machine, in the order of the configuration.
#[derive(Debug, Default)]
pub struct NetworkSet {
    cards: Vec<Card>,
}

#[derive(Debug)]
struct Card {
    id: String,
    backend: String,
    address: MacAddress,
    instance: Guid,
    attachment: Arc<Attachment>,
    device: NetworkCard,
    capture: Option<Arc<Capture>>,
}

/// The state of a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardReport {
    /// The card's id.
    pub id: String,
    /// The backend, as on the command line.
    pub backend: String,
    /// The card's permanent address.
    pub address: MacAddress,
    /// The card's instance on the bus.
    pub instance: Guid,
    /// The largest MTU that the guest is offered.
    pub mtu: u32,
    /// The state of the link.
    pub link: LinkState,
    /// The state that the user chose: the link is down without it, and the backend decides with it.
    pub chosen_link: LinkState,
    /// The totals of each queue.
    pub queues: Vec<QueueReport>,
    /// The counters of each channel.
    pub channels: Vec<ChannelCounters>,
    /// Frames in the capture file and frames that it lacks, because it was too slow. `None` for a
    /// card without one.
    pub capture: Option<(u64, u64)>,
}

impl NetworkSet {
    /// Offers each card on the bus, and starts its threads.
    ///
    /// # Errors
    /// The system is out of descriptors, memory or threads.
    pub fn start(networks: OpenNetworks, bus: &VmBus) -> Result<Self, NetworkError> {
        let cards = networks.cards.into_iter().map(Card::new).collect::<Result<Vec<_>, _>>()?;
        for card in &cards {
            bus.offer(Box::new(card.device.clone())).map_err(std::io::Error::other)?;
        }
        Ok(NetworkSet { cards })
    }

    /// Takes the link of the card `id` down, or up again.
    ///
    /// # Errors
    /// There is no such card.
    pub fn set_link(&self, id: &str, link: LinkState) -> Result<(), String> {
        match self.cards.iter().find(|card| card.id == id) {
            Some(card) => {
                card.attachment.set_link(link);
                Ok(())
            }
            None => Err(self.unknown(id)),
        }
    }

    /// Returns the state of each card.
    pub fn reports(&self) -> Vec<CardReport> {
        self.cards.iter().map(Card::report).collect()
    }

    fn unknown(&self, id: &str) -> String {
        let ids: Vec<_> = self.cards.iter().map(|card| card.id.as_str()).collect();
        match ids.as_slice() {
            [] => format!("there is no network card `{id}`; the machine has none"),
            ids => format!("there is no network card `{id}`; there are {}", ids.join(", ")),
        }
    }
}

impl Card {
    fn new(open: OpenCard) -> Result<Self, NetworkError> {
        let OpenCard { config, backend, capture } = open;
        let id = config.id.unwrap_or_default();
        let (capture, inner) = match capture.and_then(CaptureFile::keep) {
            Some(file) => {
                let capture = Arc::new(Capture::new(backend, file, &id)?);
                (Some(Arc::clone(&capture)), capture as Arc<dyn Backend>)
            }
            None => (None, backend),
        };
        let attachment = Attachment::new(inner, config.link)?;
        let attachment = match config.mtu {
            Some(mtu) => attachment.with_mtu(mtu),
            None => attachment,
        };
        let (address, instance) = (config.mac.unwrap_or_default(), instance(&id));
        let workers = WorkerOptions::default().moderation(config.moderation);
        let options = CardOptions { instance, address, name: id.clone(), workers };
        let attachment = Arc::new(attachment);
        let backend = Arc::clone(&attachment);
        Ok(Card {
            id,
            backend: config.backend.to_string(),
            address,
            instance,
            attachment,
            device: NetworkCard::with_channels(options, backend, config.queues),
            capture,
        })
    }

    fn report(&self) -> CardReport {
        CardReport {
            id: self.id.clone(),
            backend: self.backend.clone(),
            address: self.address,
            instance: self.instance,
            mtu: self.attachment.mtu_limit(),
            link: self.attachment.link_state(),
            chosen_link: self.attachment.chosen_link(),
            queues: self.attachment.queue_reports(),
            channels: self.device.channel_counters(),
            capture: self.capture.as_ref().map(|capture| (capture.recorded(), capture.dropped())),
        }
    }
}
