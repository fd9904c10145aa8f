//! The device.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use synthvm_net::{Backend, Offloads as Available};
use vmbus_device::{WorkerOptions, Workers};
use vmbus_host::{Channel, Device, Offer, OpenError};
use vmbus_protocol::{Guid, guid};

use crate::counters::ChannelCounters;
use crate::data_path::DataPath;
use crate::link::{CardLink, Clock, LinkReporter};
use crate::primary::PrimaryHandler;
use crate::protocol::MacAddress;
use crate::protocol::limits::MAX_CHANNELS;
use crate::protocol::oid::{CardProperties, Directions, Offloads};
use crate::state::Card;
use crate::subchannel::SubchannelHandler;

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

/// A network card. Clones are handles to the same card: the bus gets one, and its owner keeps
/// another.
#[derive(Clone)]
pub struct NetworkCard {
    card: Arc<Card>,
}

impl NetworkCard {
    /// Returns a card whose frames go to `backend` and come from it, with as many channels as the
    /// backend has queues.
    ///
    /// It offers the offloads that the backend has. Wrap a backend without any in
    /// [`synthvm_net::software::SoftwareOffload`].
    pub fn new(options: CardOptions, backend: Arc<dyn Backend>) -> Self {
        let channels = u16::try_from(backend.queues()).unwrap_or(MAX_CHANNELS);
        Self::with_channels(options, backend, channels)
    }

    /// Returns a card with up to `max_channels` channels: 1 to 64, and no more than the backend has
    /// queues. A backend with one queue serves any number: the primary channel reads its frames,
    /// and hands them to the channels that the guest's receive-side scaling selects.
    pub fn with_channels(
        options: CardOptions,
        backend: Arc<dyn Backend>,
        max_channels: u16,
    ) -> Self {
        let start = Instant::now();
        Self::with_clock(options, backend, max_channels, Arc::new(move || start.elapsed()))
    }

    /// Returns a card as [`NetworkCard::with_channels`] does, with another clock for the time
    /// between indications of the link.
    pub fn with_clock(
        options: CardOptions,
        backend: Arc<dyn Backend>,
        max_channels: u16,
        clock: Clock,
    ) -> Self {
        let CardOptions { instance, address, name, workers } = options;
        let offloads = offloads(backend.offloads());
        let queues = match backend.queues() {
            1 => MAX_CHANNELS,
            queues => u16::try_from(queues).unwrap_or(MAX_CHANNELS),
        };
        let max_channels = max_channels.min(queues).clamp(1, MAX_CHANNELS);
        let card = Card {
            offer: Offer::new(guid::class::NETWORK, instance, 0),
            properties: CardProperties {
                address,
                name,
                max_channels,
                offloads,
                may_change_address: true,
            },
            link: CardLink::new(backend.link()),
            backend,
            workers: Workers::new("net", workers),
            counters: (0..max_channels).map(|_| Arc::default()).collect(),
            saved_statistics: Mutex::default(),
            group: Mutex::default(),
            clock,
            monitor: Mutex::default(),
        };
        Self { card: Arc::new(card) }
    }

    /// Returns the counters of each channel. Over a backend with one queue, the first channel
    /// receives the frames of all.
    pub fn channel_counters(&self) -> Vec<ChannelCounters> {
        self.card.counters.iter().map(|one| one.read()).collect()
    }

    /// Returns true if the guest sees the link up: the backend's link is. A user takes it down by
    /// [`synthvm_net::Attachment`], as if the cable were pulled.
    pub fn is_link_up(&self) -> bool {
        self.card.link.is_up()
    }

    /// Takes a change of the backend's link. A thread does it for cards that threads serve.
    pub fn check_link(&self) {
        self.card.check_link();
    }
}

impl std::fmt::Debug for NetworkCard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetworkCard")
            .field("properties", &self.card.properties)
            .field("backend", &self.card.backend)
            .finish_non_exhaustive()
    }
}

impl Device for NetworkCard {
    fn offer(&self) -> Offer {
        self.card.offer.clone()
    }

    fn open(&mut self, channel: Channel) -> Result<(), OpenError> {
        let card = &self.card;
        let data = data_path(card, &channel)?;
        if channel.subchannel() == 0 {
            card.start_monitor()?;
            let link = LinkReporter::new(card.clock())?;
            let handler = PrimaryHandler::new(channel.handle(), data, link);
            card.workers.start(channel, handler)?;
        } else {
            card.workers.start(channel, SubchannelHandler::new(data))?;
            // The primary channel's worker may have waited for it.
            card.workers.kick();
        }
        Ok(())
    }

    fn pause(&mut self) {
        self.card.workers.pause();
    }

    fn resume(&mut self) {
        self.card.workers.resume();
    }

    fn save(&mut self, subchannel: u16) -> Option<Vec<u8>> {
        self.card.save_channel(subchannel)
    }

    fn restore(&mut self, channel: Channel, state: &[u8]) -> Result<(), OpenError> {
        self.card.restore_channel(channel, state)
    }
}

/// Returns the data path of `channel`, which the guest has opened.
fn data_path(card: &Arc<Card>, channel: &Channel) -> Result<DataPath, OpenError> {
    let index = channel.subchannel();
    let group = card.group_of(index)?;
    let (opening, queue) = group.open(index, &*card.backend)?;
    Ok(DataPath::new(Arc::clone(card), group, index, opening, queue, channel.ram().clone()))
}

/// Returns the card's offloads over a backend that has `available`.
fn offloads(available: Available) -> Offloads {
    let transmit = available.contains(Available::TRANSMIT_CHECKSUM);
    let receive = available.contains(Available::RECEIVE_CHECKSUM);
    let coalesce = available.contains(Available::RECEIVE);
    let sums = Directions { transmit, receive };
    Offloads {
        // Backends compute the checksum of IP headers in any case.
        ipv4: Directions { transmit, receive: false },
        tcp4: sums,
        udp4: sums,
        tcp6: sums,
        udp6: sums,
        segment4: available.contains(Available::TSO4),
        segment6: available.contains(Available::TSO6),
        coalesce4: coalesce,
        coalesce6: coalesce,
    }
}
