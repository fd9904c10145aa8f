//! Enable, connect, start, pause, disable (kmcl.md section 2).

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use vmbus_protocol::MessageBuffer;
use vmbus_protocol::limits::PAGE_SIZE;
use vmbus_protocol::message::{ChannelOnly, MessageType, ModifyChannel, OpenChannel};
use zerocopy::little_endian::U32;

use crate::error::{Error, GpadlError};
use crate::handles::ChannelId;
use crate::mdl::Range;
use crate::message::{Offer, Reply};
use crate::platform::Platform;
use crate::state::{Channel, Client, Open};

impl<P: Platform> Channel<'_, P> {
    /// Enables the channel: it accepts the target's offer, now or when it comes. Returns
    /// immediately; the open continues while the client is pumped ([`Client::wait_for_open`]).
    /// `VmbChannelEnable`.
    ///
    /// # Errors
    /// [`Error::State`] if it is enabled already or has no target; [`Error::InCallback`].
    pub fn enable(&mut self) -> Result<(), Error> {
        self.not_in_callback()?;
        let record = self.record_mut();
        if record.enabled {
            return Err(Error::State("enabled"));
        }
        if record.config.target.is_none() {
            return Err(Error::State("without a target"));
        }
        record.enabled = true;
        record.failure = None;
        Ok(())
    }

    /// Starts the flow of packets, or makes it start with the open. `VmbChannelStart`, legal
    /// between enable and disable.
    ///
    /// # Errors
    /// [`Error::State`] when disabled; [`Error::InCallback`].
    pub fn start(&mut self) -> Result<(), Error> {
        self.not_in_callback()?;
        if !self.record().enabled {
            return Err(Error::State("disabled"));
        }
        self.record_mut().active = true;
        self.start_traffic();
        Ok(())
    }

    /// Stops the flow of packets. Returns after the suspend callback, when every delivered packet
    /// is completed. A disabled channel will start paused. Sent packets that the host has not
    /// completed stay with the host. `VmbChannelPause`.
    ///
    /// # Errors
    /// [`Error::Outstanding`] if delivered packets are not completed and the machine is idle
    /// (Windows waits forever). The channel is paused nevertheless.
    pub fn pause(&mut self) -> Result<(), Error> {
        self.not_in_callback()?;
        self.record_mut().active = false;
        self.suspend_traffic()
    }

    /// Closes the channel: suspends, cancels outstanding packets, calls the closed callback, and
    /// frees the rings. Returns when the host has released all memory. `VmbChannelDisable`.
    ///
    /// # Errors
    /// [`Error::InCallback`], or the connection failed: the channel is disabled then, but its ring
    /// pages are lost, as the host may still use them.
    pub fn disable(&mut self) -> Result<(), Error> {
        self.not_in_callback()?;
        self.close(Error::Cancelled)
    }

    /// Frees a disabled channel. `VmbChannelCleanup`.
    ///
    /// # Errors
    /// [`Error::NotDisabled`].
    pub fn cleanup(self) -> Result<(), Error> {
        let record = self.record();
        if record.enabled || record.open.is_some() || record.busy {
            return Err(Error::NotDisabled);
        }
        self.client.channels.remove(&self.id);
        Ok(())
    }

    /// Sends the channel's events to another VP from now on (MODIFYCHANNEL, from version 4.1). From
    /// 5.3 on the host confirms.
    ///
    /// # Errors
    /// [`Error::State`] when it is not open, or the version has no such message; [`Error::Host`].
    pub fn modify_target_vp(&mut self, vp: u32) -> Result<(), Error> {
        let relid = self.open_ref().ok_or(Error::State("not open"))?.relid;
        if self.client.version < MessageType::ModifyChannel.since() {
            return Err(Error::State("on a connection without MODIFYCHANNEL"));
        }
        let body = ModifyChannel { relid: U32::new(relid), target_vp: U32::new(vp) };
        self.client.post(&MessageBuffer::new(MessageType::ModifyChannel, &body))?;
        if self.client.version < MessageType::ModifyChannelResponse.since() {
            return Ok(());
        }
        let status = self.client.wait_for_reply(Some(relid), |reply| match *reply {
            Reply::Modified { relid: of, status } if of == relid => Some(status),
            _ => None,
        })?;
        if status.is_success() { Ok(()) } else { Err(Error::Host(status)) }
    }

    fn not_in_callback(&self) -> Result<(), Error> {
        if self.record().busy { Err(Error::InCallback) } else { Ok(()) }
    }

    /// Starts the traffic of an open and active channel: started callback, queued packets,
    /// post-started callback.
    fn start_traffic(&mut self) {
        let record = self.record_mut();
        let (active, manual) = (record.active, record.config.manual);
        let Some(open) = record.open.as_mut().filter(|open| active && !open.sending) else {
            return;
        };
        open.sending = true;
        self.call(|driver, channel| driver.started(channel));
        if let Some(open) = self.open_mut() {
            open.receiving = true;
            // Packets that the host wrote before this check have raised no signal.
            open.event = !manual;
        }
        self.client.serve_rings();
        self.call(|driver, channel| driver.post_started(channel));
    }

    fn suspend_traffic(&mut self) -> Result<(), Error> {
        let Some(open) = self.open_mut().filter(|open| open.sending) else { return Ok(()) };
        open.receiving = false;
        self.call(|driver, channel| driver.suspend(channel));
        let id = self.id;
        let completed = self.client.wait_until(|client| {
            let outstanding = client.channel(id).outstanding_packets();
            (outstanding == 0).then_some(Ok(()))
        });
        let outstanding = self.outstanding_packets();
        if let Some(open) = self.open_mut() {
            open.sending = false;
        }
        match completed {
            Err(Error::Stalled) => Err(Error::Outstanding(outstanding)),
            other => other,
        }
    }

    /// Ends an open or waiting channel. `why`: the result of cancelled packets.
    fn close(&mut self, why: Error) -> Result<(), Error> {
        let record = self.record_mut();
        record.enabled = false;
        record.active = true;
        if record.open.is_none() {
            self.cancel_packets(why);
            return Ok(());
        }
        // Uncompleted packets do not delay the close: their tokens become invalid.
        let suspended = self.suspend_traffic();
        self.cancel_packets(why);
        self.call(|driver, channel| driver.closed(channel));
        for handle in self.gpadls() {
            self.client.count(|stats| stats.leaked_gpadls += 1);
            self.delete_gpadl(handle).map_err(link_error)?;
        }
        self.give_back()?;
        suspended
    }

    /// Closes the rings and frees their pages.
    fn give_back(&mut self) -> Result<(), Error> {
        let record = self.record_mut();
        record.epoch = record.epoch.wrapping_add(1);
        let Some(Open { relid, rings, ring_pages, ring_gpadl, .. }) = record.open.take() else {
            return Ok(());
        };
        drop(rings);
        let body = ChannelOnly { relid: U32::new(relid) };
        self.client.post(&MessageBuffer::new(MessageType::CloseChannel, &body))?;
        // The host may write to the pages until it has answered, so they are freed only then; if it
        // never answers, never.
        self.client.tear_down(relid, ring_gpadl)?;
        self.client.platform.free_pages(&ring_pages);
        Ok(())
    }

    /// Opens the channel of an offer.
    fn connect(&mut self, offer: &Offer) -> Result<(), Error> {
        let config = &self.record().config;
        let (incoming, outgoing) = config.ring_pages();
        let target_vp = config.target_vp.unwrap_or(self.client.target_vp);
        let user_data = config.user_data;
        let memory = Error::Memory(crate::NtStatus::INSUFFICIENT_RESOURCES);
        let count = incoming.checked_add(outgoing).ok_or(memory)?;
        let pages = self.client.platform.allocate_pages(count).ok_or(memory)?;
        let (ring_gpadl, rings) = match self.describe_rings(offer.relid, &pages, outgoing) {
            Ok(described) => described,
            Err((error, free)) => {
                if free {
                    self.client.platform.free_pages(&pages);
                }
                return Err(error);
            }
        };
        let body = OpenChannel {
            relid: U32::new(offer.relid),
            open_id: U32::new(offer.relid),
            ring_gpadl: U32::new(ring_gpadl),
            target_vp: U32::new(target_vp),
            downstream_page_offset: U32::new(outgoing as u32),
            user_data,
        };
        if let Err(error) = self.client.open_rings(&body) {
            drop(rings);
            self.client.tear_down(offer.relid, ring_gpadl)?;
            self.client.platform.free_pages(&pages);
            return Err(error);
        }
        let record = self.record_mut();
        record.open = Some(Open {
            relid: offer.relid,
            connection_id: offer.connection_id,
            instance: offer.instance,
            rings,
            ring_pages: pages,
            ring_gpadl,
            gpadls: BTreeMap::new(),
            sending: false,
            receiving: false,
            event: false,
            blocked: false,
            stopped: None,
            pending: VecDeque::new(),
            outstanding: 0,
            delivered: 0,
        });
        if let Some(Err(status)) = self.call(|driver, channel| driver.opened(channel)) {
            self.close(Error::Cancelled)?;
            return Err(Error::Driver(status));
        }
        self.start_traffic();
        Ok(())
    }

    /// Maps the rings and describes their pages to the host. An error also says whether the pages
    /// are free.
    fn describe_rings(
        &mut self,
        relid: u32,
        pages: &[u64],
        outgoing: usize,
    ) -> Result<(u32, P::Rings), (Error, bool)> {
        let rings = self
            .client
            .platform
            .map_rings(pages, outgoing)
            .map_err(|status| (Error::Memory(status), true))?;
        let id = self.client.new_gpadl_id();
        let memory = Error::Memory(crate::NtStatus::INSUFFICIENT_RESOURCES);
        let byte_count = u32::try_from(pages.len() * PAGE_SIZE).map_err(|_| (memory, true))?;
        match self.client.describe(relid, id, &[Range { byte_count, byte_offset: 0, pages }]) {
            Ok(()) => Ok((id, rings)),
            Err(GpadlError::Host(status)) => Err((Error::Host(status), true)),
            Err(GpadlError::TooLarge { .. }) => Err((memory, true)),
            Err(GpadlError::Link(Error::Removed)) => Err((Error::Removed, true)),
            // The state of the GPADL at the host is unknown.
            Err(other) => Err((link_error(other), false)),
        }
    }
}

impl<P: Platform> Client<P> {
    fn open_rings(&mut self, body: &OpenChannel) -> Result<(), Error> {
        let (relid, open_id) = (body.relid.get(), body.open_id.get());
        let is_reply = move |reply: &Reply| match *reply {
            Reply::Opened { relid: of, open_id: id, status } if (of, id) == (relid, open_id) => {
                Some(status)
            }
            _ => None,
        };
        self.forget_replies(|reply| is_reply(reply).is_some());
        self.post(&MessageBuffer::new(MessageType::OpenChannel, body))?;
        let status = self.wait_for_reply(Some(relid), is_reply)?;
        if status.is_success() { Ok(()) } else { Err(Error::Host(status)) }
    }

    /// Opens enabled channels that have an offer.
    pub(crate) fn connect_waiting(&mut self) -> bool {
        let waiting: Vec<ChannelId> = self
            .channels
            .iter()
            .filter(|(_, record)| {
                record.enabled && record.open.is_none() && record.failure.is_none()
            })
            .map(|(&id, _)| id)
            .collect();
        let mut any = false;
        for id in waiting {
            let Some(offer) = self.offer_for(id) else { continue };
            any = true;
            if let Err(error) = self.channel(id).connect(&offer) {
                let mut channel = self.channel(id);
                let record = channel.record_mut();
                record.enabled = false;
                record.failure = Some(error);
                channel.cancel_packets(error);
                channel.call(|driver, _| driver.pnp_failure(error.status()));
            }
        }
        any
    }

    /// Returns the first offer for the channel's target that no other channel uses.
    fn offer_for(&self, id: ChannelId) -> Option<Offer> {
        let config = &self.channels.get(&id)?.config;
        let (class, instance) = config.target?;
        self.offers()
            .find(|offer| {
                offer.class == class
                    && instance.is_none_or(|instance| offer.instance == instance)
                    && offer.subchannel == config.subchannel
                    && !self.channels.values().any(|record| record.relid() == Some(offer.relid))
            })
            .cloned()
    }

    /// Closes rescinded channels, and releases them.
    pub(crate) fn settle_rescinds(&mut self) -> bool {
        let relids: Vec<u32> = self.rescinded.iter().copied().collect();
        for &relid in &relids {
            let id = self
                .channels
                .iter()
                .find(|(_, record)| record.relid() == Some(relid))
                .map(|(&id, _)| id);
            if let Some(id) = id {
                let mut channel = self.channel(id);
                // The pages are free even if the driver leaves GPADLs behind, as the host has
                // released all memory.
                let _ = channel.close(Error::Removed);
                channel.record_mut().failure = Some(Error::Removed);
            }
            self.offers.remove(&relid);
            self.rescinded.remove(&relid);
            let body = ChannelOnly { relid: U32::new(relid) };
            // A failed post is ignored: the host takes no messages any more.
            let _ = self.post(&MessageBuffer::new(MessageType::RelidReleased, &body));
        }
        !relids.is_empty()
    }
}

fn link_error(error: GpadlError) -> Error {
    match error {
        GpadlError::Link(error) => error,
        other => Error::Host(other.status()),
    }
}
