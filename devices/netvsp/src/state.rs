//! The state of a card that its channels share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use synthvm_net::{Backend, Offloads};
use vmbus_device::Workers;
use vmbus_host::{Offer, OpenError};

use crate::counters::SharedCounters;
use crate::group::ChannelGroup;
use crate::link::{CardLink, Clock, LinkMonitor};
use crate::protocol::limits::ETHERNET_HEADER;
use crate::protocol::nvsp::Session;
use crate::protocol::oid::{CardProperties, Link, Statistics};
use crate::saved::SavedState;

/// Speed of the link as guests see it, in bit/s.
const SPEED: u64 = 10_000_000_000;

/// The state of a card that outlives its connections.
pub(crate) struct Card {
    pub(crate) offer: Offer,
    pub(crate) properties: CardProperties,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) workers: Workers<SavedState>,
    /// One entry for each channel.
    pub(crate) counters: Box<[Arc<SharedCounters>]>,
    /// The totals of the card that was saved, if this one is restored.
    pub(crate) saved_statistics: Mutex<Statistics>,
    /// The channels of the current connection. Each opening of the primary channel replaces them.
    pub(crate) group: Mutex<Option<Arc<ChannelGroup>>>,
    pub(crate) link: CardLink,
    pub(crate) clock: Clock,
    /// Started with the first channel.
    pub(crate) monitor: Mutex<Option<LinkMonitor>>,
}

impl Card {
    /// Returns the longest frame that the backend takes, in bytes with the Ethernet header.
    pub(crate) fn backend_limit(&self) -> u32 {
        self.backend.mtu_limit().saturating_add(ETHERNET_HEADER)
    }

    /// Lets `session` send coalesced frames if the backend has them.
    pub(crate) fn coalescing(&self, session: Session) -> Session {
        if self.backend.offloads().contains(Offloads::COALESCED_RECEIVE) {
            session.with_coalescing()
        } else {
            session
        }
    }

    /// Returns the counters of channel `index`, which the card has.
    pub(crate) fn counters_of(&self, index: u16) -> Arc<SharedCounters> {
        self.counters.get(usize::from(index)).cloned().unwrap_or_default()
    }

    /// Returns the totals of all channels.
    pub(crate) fn statistics(&self) -> Statistics {
        let mut totals = *self.saved_statistics();
        self.counters.iter().for_each(|one| totals.add(&one.statistics.read()));
        totals
    }

    /// Continues the totals of a saved card.
    pub(crate) fn continue_statistics(&self, saved: Statistics) {
        *self.saved_statistics() = saved;
    }

    fn saved_statistics(&self) -> MutexGuard<'_, Statistics> {
        self.saved_statistics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the state of the link.
    pub(crate) fn link(&self) -> Link {
        Link { is_up: self.link.is_up(), speed: SPEED }
    }

    /// Takes a change of the backend's link.
    pub(crate) fn check_link(&self) {
        if self.link.set_backend(self.backend.link()) {
            self.workers.kick();
        }
    }

    /// Starts the thread that watches the backend's link, unless there are no threads.
    pub(crate) fn start_monitor(self: &Arc<Self>) -> std::io::Result<()> {
        let mut monitor = self.monitor.lock().unwrap_or_else(PoisonError::into_inner);
        if monitor.is_none() && self.workers.options().inline.is_none() {
            let card = Arc::downgrade(self);
            let check = move || card.upgrade().map(|card| card.check_link()).is_some();
            *monitor = LinkMonitor::start(Arc::clone(&self.backend), check)?;
        }
        Ok(())
    }

    /// Returns the clock of the link's indications.
    pub(crate) fn clock(&self) -> Clock {
        Arc::clone(&self.clock)
    }

    /// Returns the group of a channel: a new one for a primary channel.
    pub(crate) fn group_of(&self, index: u16) -> Result<Arc<ChannelGroup>, OpenError> {
        if index == 0 {
            let channels = self.properties.max_channels;
            *self.group() = Some(Arc::new(ChannelGroup::new(&*self.backend, channels)?));
        }
        self.group().clone().ok_or_else(|| OpenError("the card is not connected".to_owned()))
    }

    /// Returns the channels of the current connection.
    pub(crate) fn group(&self) -> MutexGuard<'_, Option<Arc<ChannelGroup>>> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
