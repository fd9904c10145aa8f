//! Gives channels to their devices: maps rings and calls [`Device::open`](crate::Device::open),
//! without any lock of the bus.
//!
//! The core requests an open and gets its outcome as an event. In the meantime the guest may close
//! the channel, and the host may rescind it or reset the machine. The core records that, and closes
//! the channel when the device has answered. A device with a blocking `open` gets a thread for each
//! open, so that neither vCPUs nor other threads wait for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::{debug, warn};
use vmbus_ring::{Incoming, Outgoing, RingMemory};

use super::doorbells::ring;
use super::lock::lock;
use super::opens::{Opening, Request};
use super::pump::OTHER_WORK;
use super::state::{Event, Inner, Job, State};
use super::work::InJob;
use crate::core::{ChannelKey, OpenParams};
use crate::device::{Channel, ChannelParts, ChannelShared};

/// A channel, the bus's record of it, and the device's saved state, if any.
type Made = (Channel, Arc<ChannelShared>, Option<Vec<u8>>);

impl Inner {
    /// Requests an open of the channel, to run after the state is released, or after the pause.
    pub(super) fn request_open(&self, state: &mut State, key: ChannelKey, params: OpenParams) {
        let request = self.request(state, key, params, None);
        match (request, state.held.is_some()) {
            (Some(request), true) => state.deferred.push(request),
            (Some(request), false) => self.queue_open(request),
            (None, _) => state.core.opened(key, false),
        }
    }

    /// Requests an open of a channel of a restored bus. [`VmBus::restore`](super::VmBus::restore)
    /// runs it.
    pub(super) fn request_reopen(
        &self,
        state: &mut State,
        key: ChannelKey,
        params: OpenParams,
        saved: Vec<u8>,
    ) {
        match self.request(state, key, params, Some(saved)) {
            Some(request) => state.reopens.push(request),
            None => state.core.reopened(key, false),
        }
    }

    pub(super) fn queue_open(&self, request: Request) {
        self.opens.begin();
        self.pump.add_job(Job::Open(Box::new(request)));
    }

    fn request(
        &self,
        state: &mut State,
        key: ChannelKey,
        params: OpenParams,
        saved: Option<Vec<u8>>,
    ) -> Option<Request> {
        let doorbell = Arc::clone(&state.links.get(&key)?.doorbell);
        let device = Arc::clone(state.devices.get(&params.primary)?);
        state.channels_made = state.channels_made.wrapping_add(1);
        let (serial, paused) = (state.channels_made, state.held.is_some());
        Some(Request { key, serial, params, device, doorbell, paused, saved })
    }

    /// Runs an open on this thread, or on a thread of its own if the device may block.
    pub(super) fn start_open(&self, request: Request) {
        if !request.device.open_blocks {
            return self.open(request);
        }
        let on_thread = |bus: &Inner, request| {
            bus.open(request);
            bus.pump.settle(bus, OTHER_WORK);
        };
        if let Err(request) = self.spawn("bus-open", request, on_thread) {
            self.open(request);
        }
    }

    fn open(&self, request: Request) {
        let opening = Opening { key: request.key, taken: None, reopened: request.saved.is_some() };
        // The core gets an event even if the device panics.
        let mut answer = Answer { bus: self, opening: Some(opening) };
        answer.opening = Some(self.ask_device(request));
    }

    /// Maps the rings and gives the channel to its device. Holds no lock but the device's own.
    pub(super) fn ask_device(&self, request: Request) -> Opening {
        let (key, device, reopened) =
            (request.key, Arc::clone(&request.device), request.saved.is_some());
        let (relid, subchannel) = (request.params.relid, request.params.subchannel);
        let refused = Opening { key, taken: None, reopened };
        let (channel, shared, saved) = match self.make_channel(request) {
            Ok(made) => made,
            Err(error) => {
                self.failed_opens.log(|suppressed| {
                    warn!(relid, error, suppressed, "a channel could not be opened");
                });
                return refused;
            }
        };
        let taken = {
            let _job = InJob::begin();
            let mut device = lock(&device.device);
            match saved {
                None => device.open(channel),
                Some(saved) => device.restore(channel, &saved),
            }
        };
        match taken {
            Ok(()) => {
                debug!(relid, subchannel, restored = reopened, "channel open");
                Opening { key, taken: Some(shared), reopened }
            }
            Err(error) => {
                self.failed_opens.log(|suppressed| {
                    warn!(
                        relid,
                        %error,
                        suppressed,
                        restoring = reopened,
                        "the device refused to open a channel"
                    );
                });
                refused
            }
        }
    }

    fn make_channel(&self, request: Request) -> Result<Made, String> {
        let Request { key, serial, params, doorbell, paused, saved, .. } = request;
        let downstream_pages = params.ring.pages().saturating_sub(params.downstream_page);
        let incoming = RingMemory::map(params.ring.clone(), 0, params.downstream_page)
            .map_err(|error| error.to_string())?;
        let outgoing = RingMemory::map(params.ring, params.downstream_page, downstream_pages)
            .map_err(|error| error.to_string())?;
        let doorbell = doorbell.try_clone().map_err(|error| error.to_string())?;
        let (channel, shared) = Channel::new(ChannelParts {
            incoming: Incoming::new(incoming).map_err(|error| error.to_string())?,
            outgoing: Outgoing::new(outgoing).map_err(|error| error.to_string())?,
            doorbell,
            ram: self.ram.clone(),
            user_data: params.user_data,
            key,
            serial,
            relid: params.relid,
            subchannel: params.subchannel,
            event_flag: params.event_flag,
            target_vp: params.target_vp,
            synic: Arc::clone(&self.synic),
            bus: self.link.clone(),
            trace: self.trace.get().cloned(),
        });
        shared.set_paused(paused);
        Ok((channel, shared, saved))
    }

    /// Handles the device's answer.
    pub(super) fn handle_opened(&self, state: &mut State, opening: Opening) {
        let Opening { key, taken, reopened } = opening;
        if let (Some(shared), Some(link)) = (&taken, state.links.get_mut(&key)) {
            shared.set_paused(state.held.is_some());
            link.open = Some(Arc::clone(shared));
        }
        if reopened {
            state.core.reopened(key, taken.is_some());
        } else {
            self.opens.end();
            state.core.opened(key, taken.is_some());
        }
        let Some(shared) = taken else { return };
        if shared.ended.load(Ordering::Acquire) {
            // The device dropped the channel before this event was handled. Its `Closed` was
            // ignored then.
            self.handle_closed(state, key, shared.serial);
            return;
        }
        if reopened && state.core.is_closing(key) {
            // The channel was closed during the device's restore.
            shared.begin_close();
            if let Some(link) = state.links.get(&key) {
                ring(&link.doorbell);
            }
        }
        Self::handle_subchannels(state, key, shared.serial);
    }

    /// Handles a device's request for subchannels. They are offered once the guest knows that the
    /// primary is open.
    pub(super) fn handle_subchannels(state: &mut State, key: ChannelKey, serial: u64) {
        let open = state.links.get(&key).and_then(|link| link.open.as_ref());
        let total =
            open.filter(|open| open.serial == serial).and_then(|open| open.wanted_subchannels());
        if let Some(total) = total {
            state.core.offer_subchannels(key, total);
        }
    }
}

/// Queues a device's answer on drop. A device that panics has refused.
struct Answer<'a> {
    bus: &'a Inner,
    opening: Option<Opening>,
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        if let Some(opening) = self.opening.take() {
            self.bus.pump.queue().events.push_back(Event::Opened(opening));
        }
        // The caller checks the queue next, unless it unwinds.
        if std::thread::panicking() {
            self.bus.pump.settle(self.bus, 0);
        }
    }
}
