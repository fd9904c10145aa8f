//! A channel's life: open, close, modify, revoke, release (vmbus-core 4.2, 4.4, 4.5, section 5).

use vmbus_protocol::message::{ChannelOnly, MessageType};
use vmbus_protocol::message::{
    CloseReservedChannel, ModifyChannel, ModifyChannelResponse, OpenChannel, OpenChannelResult,
    OpenReservedChannel,
};
use vmbus_protocol::num::usize_of;
use vmbus_protocol::offer::{NO_INTERRUPT_VP, SINT_COUNT, status};
use vmbus_protocol::{MessageBuffer, Version};
use zerocopy::little_endian::U32;

use super::action::OpenParams;
use super::channel::{AfterClose, AfterDrain, ChannelKey, OpenRequest, Phase};
use super::connection::ConnectionState;
use super::{Action, Core, Ignored, Outcome};

/// A ring is a control page and at least one page of data.
const MIN_RING_PAGES: usize = 2;

impl Core {
    pub(super) fn open_channel(&mut self, request: &OpenChannel) -> Outcome {
        let relid = request.relid.get();
        let key = self.channels.key_of(relid).ok_or(Ignored::Channel(relid))?;
        let channel = self.channels.get_mut(key).ok_or(Ignored::Channel(relid))?;
        let request = OpenRequest {
            open_id: request.open_id.get(),
            ring_gpadl: request.ring_gpadl.get(),
            target_vp: request.target_vp.get(),
            downstream_page: request.downstream_page_offset.get(),
            user_data: request.user_data,
        };
        match &mut channel.phase {
            Phase::Offered => self.start_open(key, request),
            Phase::Closing { then } | Phase::Opening { abort: Some(then), .. }
                if *then == AfterClose::Offered =>
            {
                *then = AfterClose::Reopen(request);
            }
            // A guest error. It is answered, as the guest would otherwise wait forever. The first
            // open continues.
            Phase::Opening { abort: None | Some(AfterClose::Reopen(_)), .. }
            | Phase::Open { .. }
            | Phase::Closing { then: AfterClose::Reopen(_) } => {
                self.post_open_result(relid, request.open_id, status::UNSUCCESSFUL);
            }
            Phase::Opening { .. }
            | Phase::Closing { .. }
            | Phase::Draining { .. }
            | Phase::Revoked
            | Phase::Unoffered
            | Phase::Released => {
                return Err(Ignored::ChannelState(relid));
            }
        }
        Ok(())
    }

    fn start_open(&mut self, key: ChannelKey, request: OpenRequest) {
        let Some(relid) = self.channels.get(key).and_then(|channel| channel.relid) else { return };
        let Some(params) = self.open_params(key, &request) else {
            self.post_open_result(relid, request.open_id, status::INVALID_PARAMETER);
            return;
        };
        if let Some(channel) = self.channels.get_mut(key) {
            channel.phase = Phase::Opening { request, abort: None };
        }
        self.out.push(Action::Open { key, params });
    }

    /// Returns the parameters for the device, with the rings mapped. `None` if the guest's
    /// parameters are not valid.
    pub(super) fn open_params(&self, key: ChannelKey, request: &OpenRequest) -> Option<OpenParams> {
        let channel = self.channels.get(key)?;
        let relid = channel.relid?;
        let downstream_page = usize_of(request.downstream_page);
        let target_exists =
            request.target_vp < self.vp_count || request.target_vp == NO_INTERRUPT_VP;
        let ring = self.gpadls.map_ring(relid, request.ring_gpadl).filter(|ring| {
            let last = ring.pages().saturating_sub(MIN_RING_PAGES);
            target_exists && (MIN_RING_PAGES..=last).contains(&downstream_page)
        })?;
        Some(OpenParams {
            primary: channel.primary.unwrap_or(key),
            subchannel: channel.subchannel,
            relid,
            ring,
            downstream_page,
            target_vp: request.target_vp,
            event_flag: u16::try_from(relid).ok()?,
            user_data: request.user_data,
        })
    }

    pub(super) fn device_opened(&mut self, key: ChannelKey, accepted: bool) {
        let Some(channel) = self.channels.get_mut(key) else { return };
        let (Phase::Opening { request, abort }, Some(relid)) = (channel.phase, channel.relid)
        else {
            return;
        };
        match (abort, accepted) {
            (None, true) => {
                channel.phase = Phase::Open { request, served: true };
                self.post_open_result(relid, request.open_id, status::SUCCESS);
                self.out.push(Action::Signal { key });
            }
            (None, false) => {
                channel.phase = Phase::Offered;
                self.post_open_result(relid, request.open_id, status::UNSUCCESSFUL);
                self.end_socket(key);
            }
            (Some(then), true) => {
                channel.phase = Phase::Closing { then };
                self.out.push(Action::Close { key });
            }
            (Some(then), false) => self.after_close(key, then),
        }
        self.try_finish_reset();
    }

    pub(super) fn close_channel(&mut self, relid: u32) -> Outcome {
        let key = self.channels.key_of(relid).ok_or(Ignored::Channel(relid))?;
        let channel = self.channels.get_mut(key).ok_or(Ignored::Channel(relid))?;
        let is_primary = channel.primary.is_none();
        // The OPEN that this CLOSE cancels, if it has no result yet.
        let cancelled = match &mut channel.phase {
            Phase::Open { .. } => None,
            Phase::Opening { request, abort: abort @ None } => {
                *abort = Some(AfterClose::Offered);
                channel.wanted_subchannels = 0;
                Some(request.open_id)
            }
            Phase::Opening { abort: Some(then), .. } | Phase::Closing { then } => match *then {
                AfterClose::Reopen(request) => {
                    *then = AfterClose::Offered;
                    Some(request.open_id)
                }
                // Not an error: every guest closes a rescinded channel that was open.
                AfterClose::Revoke => return Ok(()),
                AfterClose::Offered | AfterClose::Release | AfterClose::Reset => {
                    return Err(Ignored::ChannelState(relid));
                }
            },
            Phase::Revoked | Phase::Draining { then: AfterDrain::Rescind } => return Ok(()),
            Phase::Unoffered | Phase::Offered | Phase::Draining { .. } | Phase::Released => {
                return Err(Ignored::ChannelState(relid));
            }
        };
        if is_primary {
            for subchannel in self.channels.subchannels_of(key) {
                self.revoke(subchannel, true);
            }
        }
        match cancelled {
            // Each OPEN is answered once. The close takes effect after the device has answered,
            // too.
            Some(open_id) => self.post_open_result(relid, open_id, status::UNSUCCESSFUL),
            None => self.let_go(key, AfterClose::Offered),
        }
        self.end_socket(key);
        Ok(())
    }

    /// Makes the device close the channel. `then` follows.
    pub(super) fn let_go(&mut self, key: ChannelKey, then: AfterClose) {
        let Some(channel) = self.channels.get_mut(key) else { return };
        channel.wanted_subchannels = 0;
        match &mut channel.phase {
            Phase::Open { served: true, .. } => {
                channel.phase = Phase::Closing { then };
                self.out.push(Action::Close { key });
            }
            Phase::Opening { abort, .. } => {
                *abort = Some(abort.map_or(then, |before| before.and_then(then)));
            }
            Phase::Closing { then: before } => *before = before.and_then(then),
            Phase::Open { served: false, .. }
            | Phase::Unoffered
            | Phase::Offered
            | Phase::Draining { .. }
            | Phase::Revoked
            | Phase::Released => self.after_close(key, then),
        }
    }

    pub(super) fn device_closed(&mut self, key: ChannelKey) {
        let Some(channel) = self.channels.get_mut(key) else { return };
        match &mut channel.phase {
            Phase::Closing { then } => {
                let then = *then;
                self.after_close(key, then);
                self.try_finish_reset();
            }
            Phase::Open { served, .. } => {
                *served = false;
                self.end_socket(key);
            }
            Phase::Unoffered
            | Phase::Offered
            | Phase::Opening { .. }
            | Phase::Draining { .. }
            | Phase::Revoked
            | Phase::Released => {}
        }
    }

    fn after_close(&mut self, key: ChannelKey, then: AfterClose) {
        let Some(channel) = self.channels.get_mut(key) else { return };
        match then {
            AfterClose::Offered => channel.phase = Phase::Offered,
            AfterClose::Reopen(request) => {
                channel.phase = Phase::Offered;
                self.start_open(key, request);
            }
            AfterClose::Release => self.drain(key, AfterDrain::Release),
            AfterClose::Revoke => self.drain(key, AfterDrain::Rescind),
            AfterClose::Reset => channel.phase = Phase::Unoffered,
        }
    }

    /// Continues after the device has closed the channel: all mappings of guest memory must end
    /// before the guest is notified.
    pub(super) fn drain(&mut self, key: ChannelKey, then: AfterDrain) {
        let Some(channel) = self.channels.get_mut(key) else { return };
        let Some(relid) = channel.relid else { return };
        channel.phase = Phase::Draining { then };
        for gpadl in self.gpadls.abandon_unfinished(relid) {
            self.post_gpadl_created(relid, gpadl, status::UNSUCCESSFUL);
        }
        self.gpadls.forget_channel(relid);
        self.try_finish_drain(key);
    }

    /// Continues after the last view has ended. To be called whenever a view has ended.
    pub(super) fn try_finish_drain(&mut self, key: ChannelKey) {
        let Some(channel) = self.channels.get(key) else { return };
        let (Phase::Draining { then }, Some(relid)) = (channel.phase, channel.relid) else {
            return;
        };
        if self.gpadls.has_any(relid) {
            return;
        }
        match then {
            AfterDrain::Release => self.released(key),
            AfterDrain::Rescind => {
                // Subchannels first: a guest removes them together with their primary.
                let subchannels_notified = self
                    .channels
                    .iter()
                    .filter(|channel| channel.primary == Some(key))
                    .all(|channel| {
                        matches!(channel.phase, Phase::Revoked | Phase::Unoffered | Phase::Released)
                    });
                if !subchannels_notified {
                    return;
                }
                let primary = channel.primary;
                if let Some(channel) = self.channels.get_mut(key) {
                    channel.phase = Phase::Revoked;
                }
                let body = ChannelOnly { relid: U32::new(relid) };
                self.post(MessageBuffer::new(MessageType::RescindChannelOffer, &body));
                if let Some(primary) = primary {
                    self.try_finish_drain(primary);
                }
            }
        }
    }

    pub(super) fn revoke_with_subchannels(&mut self, key: ChannelKey, remove: bool) {
        for subchannel in self.channels.subchannels_of(key) {
            self.revoke(subchannel, true);
        }
        self.revoke(key, remove);
    }

    /// Rescinds the channel. With `remove` it is forgotten once the guest has released it.
    pub(super) fn revoke(&mut self, key: ChannelKey, remove: bool) {
        let Some(channel) = self.channels.get_mut(key) else { return };
        channel.remove |= remove;
        match &mut channel.phase {
            // The relid belongs to the connection that is being reset, and the end of the reset
            // frees both.
            Phase::Unoffered if self.connection.state() == ConnectionState::Resetting => {}
            Phase::Unoffered | Phase::Released => {
                if channel.remove {
                    self.channels.remove(key);
                    self.out.push(Action::Removed { key });
                }
            }
            // Draining: either RESCIND follows already, or the guest has released it and no longer
            // knows it.
            Phase::Draining { .. } | Phase::Revoked => {}
            Phase::Offered | Phase::Opening { .. } | Phase::Open { .. } | Phase::Closing { .. } => {
                self.let_go(key, AfterClose::Revoke);
            }
        }
    }

    pub(super) fn relid_released(&mut self, relid: u32) -> Outcome {
        let key = self.channels.key_of(relid).ok_or(Ignored::Channel(relid))?;
        let channel = self.channels.get_mut(key).ok_or(Ignored::Channel(relid))?;
        match &mut channel.phase {
            Phase::Offered => {
                channel.remove |= channel.offer.is_socket();
                self.drain(key, AfterDrain::Release);
            }
            Phase::Closing { then } | Phase::Opening { abort: Some(then), .. } => {
                *then = then.and_then(AfterClose::Release);
            }
            Phase::Draining { then } => {
                // The guest released a channel that was about to be rescinded: no RESCIND follows
                // any more.
                *then = AfterDrain::Release;
                self.try_finish_drain(key);
            }
            Phase::Revoked => self.released(key),
            Phase::Opening { .. } | Phase::Open { .. } | Phase::Unoffered | Phase::Released => {
                return Err(Ignored::ChannelState(relid));
            }
        }
        Ok(())
    }

    /// Handles the end of a channel that the guest has released and no device or view uses.
    fn released(&mut self, key: ChannelKey) {
        self.unbind(key);
        let Some(channel) = self.channels.get_mut(key) else { return };
        let (primary, revoked) = (channel.primary, channel.remove);
        channel.phase = Phase::Released;
        if std::mem::take(&mut channel.reoffer) && !revoked {
            channel.phase = Phase::Unoffered;
            if self.connection.offers_requested() {
                self.send_offer(key);
            }
            return;
        }
        if revoked || primary.is_some() {
            self.channels.remove(key);
            self.out.push(Action::Removed { key });
        }
        if let Some(primary) = primary {
            self.try_finish_drain(primary);
            if revoked {
                // The primary may be open again, and its device may have asked for this one while
                // it was still closing.
                self.add_subchannels(primary, 0);
            }
        }
    }

    pub(super) fn modify_channel(&mut self, version: Version, request: &ModifyChannel) -> Outcome {
        let (relid, vp) = (request.relid.get(), request.target_vp.get());
        let vp_exists = vp < self.vp_count;
        let channel = self.channels.key_of(relid).and_then(|key| self.channels.get_mut(key));
        let mut moved = None;
        if let Some(channel) = channel
            && let Phase::Open { request, .. } = &mut channel.phase
            && vp_exists
            && request.target_vp != NO_INTERRUPT_VP
        {
            request.target_vp = vp;
            moved = Some(channel.key);
            self.out.push(Action::Retarget { key: channel.key, vp });
        }
        if version >= MessageType::ModifyChannelResponse.since() {
            let status = if moved.is_some() { status::SUCCESS } else { status::INVALID_PARAMETER };
            let body = ModifyChannelResponse { relid: U32::new(relid), status: U32::new(status) };
            self.post(MessageBuffer::new(MessageType::ModifyChannelResponse, &body));
        }
        if let Some(key) = moved {
            // Events during the change may have gone to the old VP: make the new one look.
            self.out.push(Action::Signal { key });
        }
        Ok(())
    }

    /// Reserved channels (4.6) are for crash dumps over a second storage stack; refused, but always
    /// answered.
    pub(super) fn open_reserved(&mut self, request: &OpenReservedChannel) -> Outcome {
        let (vp, sint) =
            self.reserved_target(request.target_vp.get(), request.target_sint.get())?;
        let body = OpenChannelResult {
            relid: request.relid,
            open_id: U32::ZERO,
            status: U32::new(status::UNSUCCESSFUL),
        };
        self.post_to(vp, sint, MessageBuffer::new(MessageType::OpenChannelResult, &body));
        Ok(())
    }

    pub(super) fn close_reserved(&mut self, request: &CloseReservedChannel) -> Outcome {
        let (vp, sint) =
            self.reserved_target(request.target_vp.get(), request.target_sint.get())?;
        let body = ChannelOnly { relid: request.relid };
        self.post_to(vp, sint, MessageBuffer::new(MessageType::CloseReservedResponse, &body));
        Ok(())
    }

    fn reserved_target(&self, vp: u32, sint: u32) -> Result<(u32, u8), Ignored> {
        match u8::try_from(sint) {
            Ok(narrow) if narrow < SINT_COUNT && vp < self.vp_count => Ok((vp, narrow)),
            _ => Err(Ignored::Vp(vp)),
        }
    }

    fn post_open_result(&mut self, relid: u32, open_id: u32, status: u32) {
        let body = OpenChannelResult {
            relid: U32::new(relid),
            open_id: U32::new(open_id),
            status: U32::new(status),
        };
        self.post(MessageBuffer::new(MessageType::OpenChannelResult, &body));
    }
}
