//! Pause and resume; save and restore of a paused bus.
//!
//! Devices are called without the state's lock, so reports never wait for them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::doorbells::ring;
use super::opens::DeviceSlot;
use super::state::{Inner, State};
use super::{VmBus, lock};
use crate::core::Place;
use crate::saved::{RestoreError, SaveError, SavedBus};
use crate::synic::QueuedMessage;

impl VmBus {
    /// Pauses the bus. On return, neither the bus nor its devices write guest memory, interrupt the
    /// guest or send it a message until [`VmBus::resume`]. Changes by devices and views in the
    /// meantime (a dropped channel, for instance) are recorded. Channels that the guest opens are
    /// given to their devices after the pause. Has no effect on a paused bus.
    ///
    /// Waits for opens in progress. The machine's vCPUs must have stopped, as a running guest would
    /// wait for every answer.
    pub fn pause(&self) {
        let _pausing = lock(&self.inner.pausing);
        let devices = {
            let mut state = self.inner.visit();
            if state.held.is_some() {
                return;
            }
            // From here on no message is sent and no open begins.
            state.held = Some(VecDeque::new());
            devices_of(&state)
        };
        self.inner.opens.wait_for_none();
        for slot in devices {
            lock(&slot.device).pause();
        }
        let state = self.inner.visit();
        for open in state.links.values().filter_map(|link| link.open.as_ref()) {
            open.set_paused(true);
        }
    }

    /// Resumes the bus. Held messages are sent, then every open channel is signalled once in both
    /// directions, because the missed signals are unknown. After a restore call it last, when vCPUs
    /// and clocks are restored.
    pub fn resume(&self) {
        let _pausing = lock(&self.inner.pausing);
        let devices = {
            let mut state = self.inner.visit();
            let State { held: Some(held), .. } = &mut *state else { return };
            self.inner.send(held);
            devices_of(&state)
        };
        for slot in devices {
            lock(&slot.device).resume();
        }
        let mut state = self.inner.visit();
        if let Some(mut held) = state.held.take() {
            self.inner.send(&mut held);
        }
        for link in state.links.values() {
            if let Some(open) = &link.open {
                open.set_paused(false);
                open.signal();
                ring(&link.doorbell);
            }
        }
        for request in std::mem::take(&mut state.deferred) {
            self.inner.queue_open(request.after_pause());
        }
    }

    /// Returns whether the bus is paused: between [`VmBus::pause`] and [`VmBus::resume`], and after
    /// a restore.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.inner.visit().held.is_some()
    }

    /// Saves the paused bus, which can be resumed afterwards.
    ///
    /// Guest memory must be saved after this, while the bus is still paused, as it has the ring
    /// positions and the messages in slots.
    ///
    /// # Errors
    /// See [`SaveError`].
    pub fn save(&self) -> Result<SavedBus, SaveError> {
        let _pausing = lock(&self.inner.pausing);
        let asked: Vec<(Place, Option<Arc<DeviceSlot>>)> = {
            let mut state = self.inner.visit();
            // Queued events happened before the save.
            self.inner.handle_queued(&mut state);
            if state.held.is_none() {
                return Err(SaveError::Running);
            }
            let places = state.core.served_places().into_iter();
            places.map(|place| (place, state.devices.get(&place.primary).cloned())).collect()
        };
        let mut of_devices = Vec::new();
        for (place, slot) in asked {
            if let Some(saved) = slot.and_then(|slot| lock(&slot.device).save(place.subchannel)) {
                of_devices.push((place, saved));
            }
        }
        let state = self.inner.visit();
        let mut messages = self.inner.synic.queued_messages();
        messages.extend(state.held.iter().flatten().cloned());
        let saved_by_device = |place: Place| {
            let index = of_devices.iter().position(|(of, _)| *of == place)?;
            Some(of_devices.swap_remove(index).1)
        };
        Ok(state.core.save(saved_by_device, messages))
    }

    /// Restores a saved bus over the same guest memory. All devices must have been offered before.
    /// A device with the instance of a saved one gets its open channels
    /// ([`Device::restore`](crate::Device::restore)). A device that cannot continue, or was not
    /// saved, loses them: the guest sees a rescind and a new offer. A saved device that is missing
    /// here is rescinded; a device that was not saved is offered.
    ///
    /// The bus is paused afterwards: call [`VmBus::resume`] when vCPUs and clocks are restored.
    ///
    /// # Errors
    /// See [`RestoreError`]. The bus is unchanged then.
    pub fn restore(&self, saved: &SavedBus) -> Result<(), RestoreError> {
        let _pausing = lock(&self.inner.pausing);
        let reopens = {
            let mut state = self.inner.visit();
            self.inner.handle_queued(&mut state);
            state.core.restore(saved)?;
            // Before any message that follows from the restore itself.
            state.held = Some(saved.messages.iter().cloned().collect());
            self.inner.act(&mut state);
            std::mem::take(&mut state.reopens)
        };
        for request in reopens {
            let opening = self.inner.ask_device(request);
            let mut state = self.inner.visit();
            self.inner.handle_opened(&mut state, opening);
            self.inner.act(&mut state);
        }
        Ok(())
    }
}

impl Inner {
    fn send(&self, held: &mut VecDeque<QueuedMessage>) {
        for QueuedMessage { vp, sint, message } in held.drain(..) {
            self.synic.post_message(vp, sint, &message);
        }
    }
}

fn devices_of(state: &State) -> Vec<Arc<DeviceSlot>> {
    state.devices.values().cloned().collect()
}
