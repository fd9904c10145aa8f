//! The client: one connection, its offers, its channels, and the pump that drives them.

use alloc::boxed::Box;
use core::time::Duration;

use vmbus_protocol::offer::HvStatus;
use vmbus_protocol::{Guid, MessageBuffer, Version};

use crate::error::Error;
use crate::handles::ChannelId;
use crate::message::{HostMessage, Offer, Reply};
use crate::platform::{Platform, Wake};
use crate::state::{Channel, Client, Driver, Record, Stats};

/// Maximum number of replies without a request. They are kept, as a reply may come before the
/// client waits for it.
const MAX_REPLIES: usize = 64;
/// Maximum number of attempts at one HvPostMessage while the host's queue is full.
const MAX_POST_ATTEMPTS: u32 = 10_000;

impl<P: Platform> Client<P> {
    /// Returns the negotiated version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Returns the machine.
    #[must_use]
    pub fn platform(&self) -> &P {
        &self.platform
    }

    /// Returns the host's present offers, in order of relids.
    pub fn offers(&self) -> impl Iterator<Item = &Offer> {
        self.offers.values().filter(|offer| !self.rescinded.contains(&offer.relid))
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Returns a new channel object: disabled, not bound to any offer. `VmbChannelAllocate` with
    /// `IsServer` false.
    pub fn allocate(&mut self) -> ChannelId {
        let id = ChannelId(self.next_channel);
        self.next_channel += 1;
        self.channels.insert(id, Record::default());
        id
    }

    /// Returns the channel for use.
    ///
    /// # Panics
    /// Panics if the channel was cleaned up. Ids are not reused.
    pub fn channel(&mut self, id: ChannelId) -> Channel<'_, P> {
        assert!(self.channels.contains_key(&id), "{id:?} was cleaned up");
        Channel { client: self, id }
    }

    /// Allocates a channel with default settings for the device (`instance` `None`: any of the
    /// class), enables it and waits until it is open.
    ///
    /// # Errors
    /// The device is not offered, or the open failed. The channel is cleaned up then.
    pub fn open(
        &mut self,
        class: Guid,
        instance: Option<Guid>,
        driver: Option<Box<dyn Driver<P>>>,
    ) -> Result<ChannelId, Error> {
        let id = self.allocate();
        let mut channel = self.channel(id);
        channel.init_set_target_pnp(class, instance)?;
        if let Some(driver) = driver {
            channel.init_set_driver(driver)?;
        }
        channel.enable()?;
        self.wait_for_open(id).inspect_err(|_| {
            self.channels.remove(&id);
        })?;
        Ok(id)
    }

    /// Waits until an enabled channel is open, its callbacks included.
    ///
    /// # Errors
    /// The error of the open; [`Error::Stalled`] if no such device is offered.
    pub fn wait_for_open(&mut self, id: ChannelId) -> Result<(), Error> {
        loop {
            self.poll();
            let record = self.channels.get(&id).ok_or(Error::State("cleaned up"))?;
            if let Some(failure) = record.failure {
                return Err(failure);
            }
            if record.is_open() {
                return Ok(());
            }
            if !record.is_enabled() {
                return Err(Error::State("disabled"));
            }
            if self.platform.wait() == Wake::Never {
                return Err(Error::Stalled);
            }
        }
    }

    /// Handles all work that is available now: messages, offers for enabled channels, rescinds,
    /// packets. Returns true if there was any.
    pub fn poll(&mut self) -> bool {
        let mut any = false;
        loop {
            let mut progress = self.pump();
            progress |= self.settle_rescinds();
            progress |= self.connect_waiting();
            if !progress {
                return any;
            }
            any = true;
        }
    }

    /// Handles all messages and events, or waits for one and handles it. Returns false if none can
    /// ever come.
    pub fn wait(&mut self) -> bool {
        if self.poll() {
            return true;
        }
        let woken = self.platform.wait() == Wake::Something;
        if woken {
            self.poll();
        }
        woken
    }

    /// Runs machine and client until both are idle. For machines that run in this thread
    /// ([`Platform::step`]).
    pub fn run_until_idle(&mut self) {
        while self.poll() || self.platform.step() {}
    }

    /// Takes messages and events and serves rings, as every wait does.
    pub(crate) fn pump(&mut self) -> bool {
        let mut any = self.take_messages();
        any |= self.take_events();
        any | self.serve_rings()
    }

    /// Pumps until `done` has something.
    pub(crate) fn wait_until<T>(
        &mut self,
        done: impl FnMut(&mut Self) -> Option<Result<T, Error>>,
    ) -> Result<T, Error> {
        self.wait_until_or(None, done)
    }

    /// Pumps until `done` has something; [`Error::Cancelled`] if the clock reaches `deadline`
    /// first.
    pub(crate) fn wait_until_or<T>(
        &mut self,
        deadline: Option<Duration>,
        mut done: impl FnMut(&mut Self) -> Option<Result<T, Error>>,
    ) -> Result<T, Error> {
        loop {
            // The awaited event may be the last one.
            let progress = self.pump();
            if let Some(result) = done(self) {
                return result;
            }
            let woken = match deadline.map(|deadline| deadline.saturating_sub(self.platform.now()))
            {
                Some(Duration::ZERO) => return Err(Error::Cancelled),
                _ if progress => Wake::Something,
                Some(left) => self.platform.wait_at_most(left),
                None => self.platform.wait(),
            };
            match (woken, deadline) {
                (Wake::Something, _) => {}
                (Wake::Never, None) => return Err(Error::Stalled),
                // No more work can come, so waiting for the deadline is pointless.
                (Wake::Never, Some(_)) => return Err(Error::Cancelled),
            }
        }
    }

    /// Waits for a reply that `pick` recognises. With `relid`, a rescind of that channel ends the
    /// wait.
    pub(crate) fn wait_for_reply<T>(
        &mut self,
        relid: Option<u32>,
        mut pick: impl FnMut(&Reply) -> Option<T>,
    ) -> Result<T, Error> {
        self.wait_until(|client| {
            let found =
                client.replies.iter().enumerate().find_map(|(at, reply)| Some((at, pick(reply)?)));
            if let Some((at, value)) = found {
                client.replies.remove(at);
                return Some(Ok(value));
            }
            relid.filter(|relid| client.rescinded.contains(relid)).map(|_| Err(Error::Removed))
        })
    }

    /// Drops replies that an earlier, failed exchange may have left.
    pub(crate) fn forget_replies(&mut self, stale: impl Fn(&Reply) -> bool) {
        self.replies.retain(|reply| !stale(reply));
    }

    /// Posts a message, and retries while the host's queue is full.
    pub(crate) fn post(&mut self, message: &MessageBuffer) -> Result<(), Error> {
        self.post_on(self.connection_id, message)
    }

    pub(crate) fn post_on(
        &mut self,
        connection_id: u32,
        message: &MessageBuffer,
    ) -> Result<(), Error> {
        for attempt in 1..=MAX_POST_ATTEMPTS {
            match self.platform.post_message(connection_id, message.as_bytes()) {
                HvStatus::Success => return Ok(()),
                HvStatus::InsufficientBuffers => self.platform.back_off(attempt),
                status => return Err(Error::Post(status)),
            }
        }
        Err(Error::Busy)
    }

    pub(crate) fn signal(&mut self, connection_id: u32) {
        self.stats.signals += 1;
        // A guest never repeats a signal: the id is valid from the offer to the release.
        let _ = self.platform.signal_event(connection_id);
    }

    pub(crate) fn count(&mut self, with: impl FnOnce(&mut Stats)) {
        with(&mut self.stats);
    }

    /// Returns a handle that no GPADL of this connection has; never 0.
    pub(crate) fn new_gpadl_id(&mut self) -> u32 {
        loop {
            let id = self.next_gpadl;
            self.next_gpadl = self.next_gpadl.wrapping_add(1);
            let used = self.channels.values().any(|record| record.has_gpadl(id));
            if id != 0 && !used {
                return id;
            }
        }
    }

    fn take_messages(&mut self) -> bool {
        let mut any = false;
        while let Some(message) = self.platform.take_message() {
            any = true;
            self.stats.messages += 1;
            match HostMessage::parse(message.as_bytes()) {
                Some(HostMessage::Offer(offer)) => {
                    self.offers.insert(offer.relid, offer);
                }
                // The client has already released this channel: the two messages crossed.
                Some(HostMessage::Rescind(relid)) if !self.offers.contains_key(&relid) => {}
                Some(HostMessage::Rescind(relid)) => {
                    self.rescinded.insert(relid);
                }
                Some(HostMessage::OffersDelivered) => self.offers_delivered = true,
                Some(HostMessage::Reply(reply)) => {
                    if self.replies.len() == MAX_REPLIES {
                        self.replies.pop_front();
                        self.stats.stray_replies += 1;
                    }
                    self.replies.push_back(reply);
                }
                None => self.stats.unknown_messages += 1,
            }
        }
        any
    }

    fn take_events(&mut self) -> bool {
        let (channels, stats) = (&mut self.channels, &mut self.stats);
        let mut any = false;
        self.platform.take_events(&mut |flag| {
            any = true;
            match channels.values_mut().find(|record| record.relid() == Some(u32::from(flag))) {
                Some(record) => record.event(),
                None => stats.stray_events += 1,
            }
        });
        any
    }
}

impl<P: Platform> core::fmt::Debug for Client<P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Client")
            .field("version", &self.version)
            .field("offers", &self.offers.len())
            .field("channels", &self.channels.len())
            .finish_non_exhaustive()
    }
}
