//! Standing still: pause and resume, and what can be done with a bus in between: write it down, or take over from one that was.

use super::{State, VmBus, ring};
use crate::saved::{RestoreError, SaveError, SavedBus};
use crate::synic::QueuedMessage;

impl VmBus {
    /// Stands still: when this returns nothing of the bus and its devices writes guest memory, interrupts the guest or sends it a message,
    /// until [`VmBus::resume`]. What devices and views do meanwhile (let go of a channel, say) is taken note of. Pausing again changes nothing.
    ///
    /// For a machine whose vCPUs have stopped: a guest that runs on waits for every answer.
    pub fn pause(&self) {
        let mut state = self.inner.lock();
        let state_now = &mut *state;
        if state_now.held.is_none() {
            for device in state_now.devices.values_mut() {
                device.pause();
            }
            for link in state_now.links.values() {
                if let Some(open) = &link.open {
                    open.set_paused(true);
                }
            }
            state_now.held = Some(Default::default());
        }
        drop(state);
        self.inner.pump();
    }

    /// Goes on: messages that were held back are sent, then every open channel is signalled once, both ways, because nobody knows what
    /// was missed. After a restore call it last, when vCPUs and clocks are what they were.
    pub fn resume(&self) {
        let mut state = self.inner.lock();
        let state_now = &mut *state;
        if let Some(held) = state_now.held.take() {
            for QueuedMessage { vp, sint, message } in held {
                self.inner.synic.post_message(vp, sint, &message);
            }
            for device in state_now.devices.values_mut() {
                device.resume();
            }
            for link in state_now.links.values() {
                if let Some(open) = &link.open {
                    open.set_paused(false);
                    open.signal();
                    ring(&link.doorbell);
                }
            }
        }
        drop(state);
        self.inner.pump();
    }

    /// True between [`VmBus::pause`] and [`VmBus::resume`], and after a restore.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        let paused = self.inner.lock().held.is_some();
        self.inner.pump();
        paused
    }

    /// Writes down the bus, which stands still. It can go on afterwards.
    ///
    /// Guest memory must be saved after this, while the bus still stands still: ring positions and messages in slots lie there.
    ///
    /// # Errors
    /// [`SaveError`].
    pub fn save(&self) -> Result<SavedBus, SaveError> {
        let mut state = self.inner.lock();
        // What came already happened before.
        self.inner.handle_all(&mut state);
        let saved = self.inner.write_down(&mut state);
        drop(state);
        self.inner.pump();
        saved
    }

    /// Takes over from a bus that was written down, over the same guest memory. Offer all devices first; those with the instance of a
    /// saved one get its open channels ([`Device::restore`](crate::Device::restore)). A device that cannot go on, or was not saved, loses
    /// them: the guest sees a rescind and a new offer. A saved device that is not here is rescinded, one that was not saved is offered.
    ///
    /// The bus stands still afterwards: call [`VmBus::resume`] when vCPUs and clocks are restored.
    ///
    /// # Errors
    /// [`RestoreError`]; the bus is as it was.
    pub fn restore(&self, saved: &SavedBus) -> Result<(), RestoreError> {
        let mut state = self.inner.lock();
        self.inner.handle_all(&mut state);
        let restored = state.core.restore(saved);
        if restored.is_ok() {
            // Before anything that follows from the restore itself.
            state.held = Some(saved.messages.iter().cloned().collect());
            self.inner.act(&mut state);
        }
        drop(state);
        self.inner.pump();
        restored
    }
}

impl super::Inner {
    fn write_down(&self, state: &mut State) -> Result<SavedBus, SaveError> {
        let State { core, devices, held, .. } = state;
        let Some(held) = held else { return Err(SaveError::Running) };
        let mut messages = self.synic.queued_messages();
        messages.extend(held.iter().cloned());
        let state_of = |place: crate::core::Place| devices.get_mut(&place.primary)?.save(place.subchannel);
        Ok(core.save(state_of, messages))
    }
}
