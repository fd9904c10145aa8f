//! Standing still, being written down, going on: what the bus asks for when its machine is paused, saved and restored.
//!
//! A pause lets no worker take a request and waits until each has finished what it had: then it has *parked*, and says what is needed to
//! go on. That waits for images, so it ends after [`ControllerOptions::pause_limit`](super::ControllerOptions): a worker that still has
//! requests on an image that stalls parks when they come back, and its channel cannot be saved before. Its guest then loses
//! the channel and gets the controller anew, so that nobody relies on what became of those requests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::warn;
use vmbus_host::{Channel, OpenError};

use super::{Controller, Luns, ScsiController};
use crate::protocol::{Negotiation, Session, Version};
use crate::saved::{RestoreError, SavedChannel, SavedController, SavedPacket};
use crate::worker;

/// Of a controller: whether it stands still, and who of its workers does not yet.
#[derive(Debug, Default)]
pub(super) struct Standstill {
    /// For a quick look; changed under the lock.
    paused: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    /// Of those that stand still, by subchannel: what they have for the guest.
    parked: BTreeMap<u16, Parked>,
}

/// What only a channel's worker knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parked {
    /// Oldest first: for the guest, and not yet in its ring.
    pub(crate) packets: Vec<SavedPacket>,
    /// Which changes of the disks ([`Controller::news`]) the guest has been told of; `None`: it has not looked yet.
    pub(crate) announced: Option<u64>,
}

impl Standstill {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, paused: bool) {
        let _state = self.lock();
        self.paused.store(paused, Ordering::Release);
    }
}

/// A worker, as its controller counts it. Dropped when it can touch guest memory no more.
#[derive(Debug)]
pub(crate) struct Presence {
    controller: Arc<Controller>,
    subchannel: u16,
    parked: bool,
}

impl Presence {
    /// A new worker, which runs.
    pub(crate) fn new(controller: Arc<Controller>, subchannel: u16) -> Self {
        controller.standstill.lock().running += 1;
        Self { controller, subchannel, parked: false }
    }

    /// It has nothing in flight and, if the controller stands still, will touch nothing from here on.
    pub(crate) fn park(&mut self, with: Parked) {
        let mut state = self.controller.standstill.lock();
        if !self.parked && self.controller.is_paused() {
            self.parked = true;
            state.running -= 1;
            state.parked.insert(self.subchannel, with);
            self.controller.standstill.changed.notify_all();
        }
    }

    /// It would like to go on. False: the controller still stands still.
    pub(crate) fn leave(&mut self) -> bool {
        if !self.parked {
            return true;
        }
        let mut state = self.controller.standstill.lock();
        if self.controller.is_paused() {
            return false;
        }
        self.parked = false;
        state.running += 1;
        state.parked.remove(&self.subchannel);
        true
    }

    pub(crate) fn is_parked(&self) -> bool {
        self.parked
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut state = self.controller.standstill.lock();
        if self.parked {
            state.parked.remove(&self.subchannel);
        } else {
            state.running -= 1;
            self.controller.standstill.changed.notify_all();
        }
    }
}

impl Controller {
    /// No worker may take a request.
    pub(crate) fn is_paused(&self) -> bool {
        self.standstill.paused.load(Ordering::Acquire)
    }
}

impl ScsiController {
    pub(super) fn stand_still(&self) {
        let inner = &self.inner;
        inner.standstill.set(true);
        inner.kick();
        let limit = inner.options.pause_limit;
        if let Some(inline) = inner.inline() {
            inline.park(inner, limit);
        }
        let state = inner.standstill.lock();
        let limit = if inner.inline().is_some() { Duration::ZERO } else { limit };
        let waited = inner.standstill.changed.wait_timeout_while(state, limit, |state| state.running != 0);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.running != 0 {
            let (controller, workers) = (inner.number, state.running);
            warn!(
                controller,
                workers,
                "a paused controller still has requests on an image: until they end it cannot be saved"
            );
        }
    }

    pub(super) fn go_on(&self) {
        self.inner.standstill.set(false);
        self.inner.kick();
    }

    /// See [`vmbus_host::Device::save`].
    pub(super) fn write_down(&self, subchannel: u16) -> Option<Vec<u8>> {
        let Parked { packets, announced } = self.inner.standstill.lock().parked.get(&subchannel)?.clone();
        // Disks may have come since it parked.
        let news = announced.map(|announced| announced != self.inner.news());
        let controller = (subchannel == 0).then(|| self.inner.saved());
        SavedChannel::new(packets, news, controller).to_bytes()
    }

    /// See [`vmbus_host::Device::restore`]: all is judged before anything changes.
    pub(super) fn take_over(&self, channel: Channel, state: &[u8]) -> Result<(), OpenError> {
        let is_primary = channel.subchannel() == 0;
        let refused = |error: RestoreError| OpenError(error.to_string());
        let saved = SavedChannel::from_bytes(state, is_primary).map_err(refused)?;
        let has_news = match &saved.controller {
            Some(controller) => self.inner.restore(controller).map_err(refused)?,
            None => false,
        };
        let negotiation = Arc::clone(&self.inner.negotiation.lock().unwrap_or_else(PoisonError::into_inner));
        let session = Session::restored(negotiation, is_primary, self.inner.options.max_subchannels);
        // Until the bus goes on.
        self.inner.standstill.set(true);
        let announced = saved.news.map(|news| if news || has_news { u64::MAX } else { self.inner.news() });
        let parked = Parked { packets: saved.packets, announced };
        worker::start(Arc::clone(&self.inner), session, channel, Some(parked))
            .map_err(|error| OpenError(format!("cannot start a storage worker: {error}")))
    }
}

impl Controller {
    fn saved(&self) -> SavedController {
        let negotiation = Arc::clone(&self.negotiation.lock().unwrap_or_else(PoisonError::into_inner));
        SavedController {
            stage: negotiation.stage() as u8,
            version: negotiation.version().map_or(0, Version::word),
            units: self.luns().iter().flatten().map(|lun| lun.save()).collect(),
        }
    }

    /// True when there are disks that were not there.
    fn restore(&self, saved: &SavedController) -> Result<bool, RestoreError> {
        let negotiation = Negotiation::restored(saved.stage, saved.version)
            .ok_or(RestoreError::Damaged("its stage of initialisation does not exist"))?;
        let luns = self.luns();
        let at = |luns: &Luns, lun: u8| luns.get(usize::from(lun)).and_then(Option::as_ref).map(Arc::clone);
        for unit in &saved.units {
            let lun = at(&luns, unit.lun);
            lun.ok_or(RestoreError::Disk { lun: unit.lun, why: "there is none" })?.check(unit)?;
        }
        for unit in &saved.units {
            at(&luns, unit.lun).into_iter().for_each(|lun| lun.restore(unit));
        }
        let has_more = luns.iter().flatten().count() > saved.units.len();
        drop(luns);
        *self.negotiation.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(negotiation);
        Ok(has_more)
    }
}
