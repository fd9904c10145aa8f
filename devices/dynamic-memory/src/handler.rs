//! The device's part of an open channel.

use std::convert::Infallible;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vmbus_device::{ChannelHandler, Completed, Outbox};
use vmbus_host::ChannelHandle;
use vmbus_ring::{Packet, PacketKind};
use vmm_sys_util::eventfd::EventFd;

use crate::policy::Policy;
use crate::protocol::{MAX_MESSAGE, PageRange, Session};
use crate::state::State;

/// The part of the device that its owner and its handler share.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Readable when a user has changed the wanted size.
    pub(crate) changed: EventFd,
    /// Returns the time since some moment.
    pub(crate) clock: Box<dyn Fn() -> Duration + Send + Sync>,
}

impl Shared {
    pub(crate) fn new(
        state: State,
        changed: EventFd,
        clock: Box<dyn Fn() -> Duration + Send + Sync>,
    ) -> Self {
        Self { state: Mutex::new(state), changed, clock }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state of a channel that is saved, and of the device with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedState {
    /// Always present in a saved state.
    pub(crate) session: Option<Session>,
    pub(crate) policy: Option<Policy>,
    /// Pages of the balloon.
    pub(crate) balloon: Vec<PageRange>,
    /// Pages that were added, and pages of the window that are plugged.
    pub(crate) added: u64,
    pub(crate) plugged: u64,
    /// Milliseconds since the guest's driver became ready.
    pub(crate) age: u64,
}

/// Serves the channel. Its end gives the balloon's pages to the guest.
pub(crate) struct MemoryHandler {
    shared: Arc<Shared>,
    channel: ChannelHandle,
    session: Session,
    packet: Vec<u8>,
}

impl ChannelHandler for MemoryHandler {
    type Payload = Vec<u8>;
    type Error = Infallible;
    type State = SavedState;

    fn packet(&mut self, packet: &Packet<'_>, outbox: &mut Outbox) -> Result<(), Infallible> {
        if packet.kind() != PacketKind::InBand {
            let kind = packet.kind();
            self.shared.lock().refuse(&format_args!("a packet of kind {kind:?}"));
            return Ok(());
        }
        // The guest can change a packet at any moment: only this copy is looked at.
        let mut bytes = std::mem::take(&mut self.packet);
        bytes.resize(packet.payload_len().min(MAX_MESSAGE), 0);
        packet.read_payload(&mut bytes);
        self.handle(&bytes, outbox);
        self.packet = bytes;
        Ok(())
    }

    fn complete(&mut self, outbox: &mut Outbox) -> Completed {
        if self.shared.changed.read().is_err() {
            return Completed::Nothing;
        }
        self.act(outbox);
        Completed::Some
    }

    fn events(&self, events: &mut Vec<RawFd>) {
        events.push(self.shared.changed.as_raw_fd());
    }

    fn quiesce(&self) -> Option<SavedState> {
        let now = (self.shared.clock)();
        let state = self.shared.lock();
        let since = state.driver.as_ref().map_or(now, |driver| driver.since);
        Some(SavedState {
            session: Some(self.session.clone()),
            policy: Some(state.policy.clone()),
            balloon: state.balloon.ranges(),
            added: state.added,
            plugged: state.plugged(),
            age: u64::try_from(now.saturating_sub(since).as_millis()).unwrap_or(u64::MAX),
        })
    }
}

impl MemoryHandler {
    pub(crate) fn new(shared: Arc<Shared>, channel: ChannelHandle, session: Session) -> Self {
        Self { shared, channel, session, packet: Vec::new() }
    }

    fn handle(&mut self, packet: &[u8], outbox: &mut Outbox) {
        let now = (self.shared.clock)();
        let channel = &self.channel;
        let replies =
            self.shared.lock().packet(&mut self.session, packet, now, || channel.shared_pages());
        replies.into_iter().for_each(|reply| outbox.notify(reply));
    }

    fn act(&mut self, outbox: &mut Outbox) {
        let now = (self.shared.clock)();
        let messages = self.shared.lock().act(&mut self.session, now);
        messages.into_iter().for_each(|message| outbox.notify(message));
    }
}

impl Drop for MemoryHandler {
    fn drop(&mut self) {
        self.shared.lock().disconnect();
    }
}
