//! Restore of a saved core.
//!
//! The whole state is checked before anything changes. The connection then continues without a
//! visible break: closes in progress are complete, no views delay a teardown, and open channels go
//! back to their devices. A channel is rescinded if its device cannot continue or is missing; a
//! present device is offered again once the guest has released the channel.

use std::collections::BTreeSet;

use vmbus_protocol::limits::{MAX_CHANNELS, MAX_MESSAGE_SIZE, MAX_SUBCHANNELS};
use vmbus_protocol::offer::SINT_COUNT;

use super::action::OpenParams;
use super::channel::{AfterClose, ChannelKey, Phase};
use super::connection::ConnectionState;
use super::offer::Offer;
use super::saved::{FORMAT, RestoreError, SavedBus, SavedChannel};
use super::{Action, Core};

/// An open channel that goes back to its device.
struct Reopened {
    key: ChannelKey,
    params: OpenParams,
    state: Vec<u8>,
}

impl Core {
    /// Restores the state. Devices must have been offered, and no guest may have made contact. The
    /// shell must send the queued messages of `saved` before any message that follows from this
    /// call.
    ///
    /// # Errors
    /// [`RestoreError`]; nothing has changed then.
    pub fn restore(&mut self, saved: &SavedBus) -> Result<(), RestoreError> {
        self.check(saved)?;
        let mut next = Self {
            vp_count: self.vp_count,
            connection: saved.connection,
            channels: self.channels.clone(),
            gpadls: self.gpadls.fresh(),
            counts: self.counts,
            accepts_connects: self.accepts_connects,
            out: Vec::new(),
        };
        let mut keys = Vec::with_capacity(saved.channels.len());
        for channel in &saved.channels {
            keys.push((next.restore_channel(channel)?, channel));
        }
        for gpadl in &saved.gpadls {
            if next.channels.key_of(gpadl.relid).is_none() {
                let why = "no such channel";
                return Err(RestoreError::Gpadl { relid: gpadl.relid, id: gpadl.id, why });
            }
            next.gpadls.restore(gpadl)?;
        }
        let mut reopened = Vec::new();
        for (key, channel) in &keys {
            reopened.extend(next.prepare(*key, channel)?);
        }
        *self = next;
        self.go_on(reopened);
        Ok(())
    }

    fn check(&self, saved: &SavedBus) -> Result<(), RestoreError> {
        if saved.format != FORMAT {
            return Err(RestoreError::Format(saved.format));
        }
        let fresh = self.connection.state() == ConnectionState::Disconnected
            && self.gpadls.is_empty()
            && self.channels.iter().all(|channel| channel.phase == Phase::Unoffered);
        if !fresh {
            return Err(RestoreError::NotFresh);
        }
        if let Some(vp) = saved.connection.vps().find(|&vp| vp >= self.vp_count) {
            return Err(RestoreError::Vp(vp));
        }
        for queued in &saved.messages {
            let (sint, len) = (queued.sint, queued.message.len());
            if queued.vp >= self.vp_count {
                return Err(RestoreError::Vp(queued.vp));
            }
            if sint >= SINT_COUNT || len > MAX_MESSAGE_SIZE {
                return Err(RestoreError::Message { sint, len });
            }
        }
        Ok(())
    }

    /// Restores a channel's state. A channel without a device here is kept until the guest has
    /// released it.
    fn restore_channel(&mut self, saved: &SavedChannel) -> Result<ChannelKey, RestoreError> {
        let bad = |why| Err(damaged(saved, why));
        let disconnected = self.connection.state() == ConnectionState::Disconnected;
        let resetting = self.connection.state() == ConnectionState::Resetting;
        let known = match saved.phase {
            Phase::Unoffered => resetting,
            Phase::Released => false,
            Phase::Opening { .. } => return bad("its device is being asked"),
            Phase::Offered
            | Phase::Open { .. }
            | Phase::Closing { .. }
            | Phase::Draining { .. }
            | Phase::Revoked => true,
        };
        if (saved.relid.is_some() && !known) || (saved.relid.is_none() && known && !resetting) {
            return bad("its phase and its relid disagree");
        }
        if matches!(saved.phase, Phase::Closing { then: AfterClose::Reset }) && !resetting {
            return bad("nobody resets it");
        }
        if disconnected && saved.phase != Phase::Unoffered {
            return bad("nobody is connected");
        }
        if saved.subchannel > MAX_SUBCHANNELS || saved.wanted_subchannels > MAX_SUBCHANNELS {
            return bad("too many subchannels");
        }
        let key = self.channel_for(saved)?;
        if let Some(relid) = saved.relid
            && !self.channels.claim_relid(key, relid)
        {
            return bad("its relid is not one, or another channel's");
        }
        let Some(channel) = self.channels.get_mut(key) else { return bad("it is nowhere") };
        channel.phase = saved.phase;
        channel.wanted_subchannels = saved.wanted_subchannels;
        channel.reoffer = saved.reoffer;
        // A device that was removed and is present here counts as new.
        channel.reoffer |= saved.remove && channel.present;
        channel.remove = saved.remove && !channel.present;
        Ok(key)
    }

    /// Returns the channel's record: its device's, or a new one.
    fn channel_for(&mut self, saved: &SavedChannel) -> Result<ChannelKey, RestoreError> {
        let same = |key: &ChannelKey| {
            self.channels.get(*key).is_some_and(|channel| channel.offer.instance == saved.instance)
        };
        let keys: Vec<ChannelKey> = self.channels.keys().into_iter().filter(same).collect();
        let of = |index: u16| {
            keys.iter()
                .filter_map(|&key| self.channels.get(key))
                .find(|channel| channel.subchannel == index)
        };
        let primary = of(0);
        match primary {
            Some(primary) if primary.offer.class != saved.class => {
                Err(RestoreError::Class(saved.instance))
            }
            Some(primary) if saved.subchannel == 0 => {
                if primary.phase != Phase::Unoffered || primary.relid.is_some() || !primary.present
                {
                    return Err(damaged(saved, "it is there twice"));
                }
                Ok(primary.key)
            }
            Some(_) if of(saved.subchannel).is_some() => Err(damaged(saved, "it is there twice")),
            None if saved.subchannel != 0 => Err(damaged(saved, "it has no primary")),
            found => {
                if self.channels.len() >= MAX_CHANNELS {
                    return Err(damaged(saved, "there are too many channels"));
                }
                let (key, present) =
                    found.map_or((None, false), |primary| (Some(primary.key), primary.present));
                let offer = found.map_or_else(
                    || Offer::new(saved.class, saved.instance, 0),
                    |primary| primary.offer.clone(),
                );
                let key = self.channels.insert(offer, key, saved.subchannel);
                if let Some(channel) = self.channels.get_mut(key) {
                    channel.present = present;
                }
                Ok(key)
            }
        }
    }

    /// Checks an open channel's parameters again, and maps its rings if its device can continue.
    fn prepare(
        &self,
        key: ChannelKey,
        saved: &SavedChannel,
    ) -> Result<Option<Reopened>, RestoreError> {
        let Phase::Open { request, served: true } = saved.phase else { return Ok(None) };
        let present =
            self.channels.get(key).is_some_and(|channel| channel.present && !channel.reoffer);
        let Some(state) = saved.device.clone().filter(|_| present) else { return Ok(None) };
        match self.open_params(key, &request) {
            Some(params) => Ok(Some(Reopened { key, params, state })),
            None => Err(damaged(saved, "its rings are none")),
        }
    }

    /// Continues the restored state. This cannot fail.
    fn go_on(&mut self, reopened: Vec<Reopened>) {
        for key in self.channels.keys() {
            if let Some(relid) = self.channels.get(key).and_then(|channel| channel.relid) {
                self.out
                    .push(Action::Bind { key, connection_id: super::offers::connection_id(relid) });
            }
        }
        if self.connection.state() == ConnectionState::Resetting {
            return self.end_interrupted_reset();
        }
        let served: BTreeSet<ChannelKey> = reopened.iter().map(|channel| channel.key).collect();
        for Reopened { key, params, state } in reopened {
            self.out.push(Action::Reopen { key, params, state });
        }
        // Rings are mapped again: nothing holds the other GPADLs that were being torn down.
        for id in self.gpadls.end_teardowns() {
            self.post_gpadl_torndown(id);
        }
        // All lost channels are marked first, as channels without a device need no close.
        let lost: Vec<ChannelKey> = self
            .channels
            .keys()
            .into_iter()
            .filter(|key| !served.contains(key) && self.lose(*key))
            .collect();
        for key in lost {
            self.renew(key);
        }
        for key in self.channels.keys() {
            self.settle(key);
        }
        if self.connection.offers_requested() {
            self.offer_all();
        }
        self.try_finish_reset();
    }

    /// Ends an interrupted reset, as no device holds guest memory any more.
    fn end_interrupted_reset(&mut self) {
        self.gpadls.forget_all();
        // A teardown in progress must be restarted here; no guest expects an answer.
        self.gpadls.end_teardowns();
        for key in self.channels.keys() {
            if let Some(channel) = self.channels.get_mut(key) {
                channel.phase = Phase::Unoffered;
            }
        }
        self.try_finish_reset();
    }

    /// Marks the channel as not served here. Returns whether it was served.
    fn lose(&mut self, key: ChannelKey) -> bool {
        let phase = self.channels.get_mut(key).map(|channel| &mut channel.phase);
        let Some(Phase::Open { served, .. }) = phase else { return false };
        std::mem::replace(served, false)
    }

    /// Ends a channel's operation that its device had not finished.
    fn settle(&mut self, key: ChannelKey) {
        let Some(channel) = self.channels.get(key) else { return };
        let gone = channel.remove || !channel.present;
        match channel.phase {
            Phase::Closing { .. } => self.device_closed(key),
            Phase::Draining { then } => self.drain(key, then),
            Phase::Open { .. }
            | Phase::Offered
            | Phase::Unoffered
            | Phase::Revoked
            | Phase::Released => {}
            // Refused when it was checked.
            Phase::Opening { .. } => {}
        }
        if gone {
            self.revoke_with_subchannels(key, true);
        }
    }

    /// Reports that [`Action::Reopen`] was carried out: the device continues, or cannot.
    pub fn reopened(&mut self, key: ChannelKey, accepted: bool) {
        let Some(channel) = self.channels.get_mut(key) else { return };
        match &mut channel.phase {
            Phase::Open { served, .. } if !accepted => {
                *served = false;
                self.renew(key);
            }
            Phase::Closing { .. } if !accepted => self.device_closed(key),
            Phase::Unoffered
            | Phase::Offered
            | Phase::Opening { .. }
            | Phase::Open { .. }
            | Phase::Closing { .. }
            | Phase::Draining { .. }
            | Phase::Revoked
            | Phase::Released => {}
        }
    }

    /// Rescinds a channel and offers it again once the guest has released it (`FORCE_NEW_CHANNEL`).
    /// A subchannel is only offered again if the device asks for it.
    fn renew(&mut self, key: ChannelKey) {
        let Some(channel) = self.channels.get_mut(key) else { return };
        let subchannel = channel.primary.is_some();
        channel.reoffer = !subchannel;
        if subchannel {
            self.revoke(key, true);
        } else {
            self.revoke_with_subchannels(key, false);
        }
    }
}

fn damaged(saved: &SavedChannel, why: &'static str) -> RestoreError {
    RestoreError::Channel { instance: saved.instance, subchannel: saved.subchannel, why }
}
