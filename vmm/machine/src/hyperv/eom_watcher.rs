//! The event loop's part of an end of message: see [`super::eom`].

use std::sync::Arc;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use tracing::error;

use super::synic::KvmSynic;

/// Kicks VPs after an EOM. For the event loop.
pub(crate) struct EomWatcher {
    synic: Arc<KvmSynic>,
}

impl EomWatcher {
    /// Returns a watcher of the EOMs of `synic`.
    pub(crate) fn new(synic: Arc<KvmSynic>) -> EomWatcher {
        EomWatcher { synic }
    }
}

impl MutEventSubscriber for EomWatcher {
    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        // The watch ends first: the eventfd keeps any later EOM for the next watch.
        if self.synic.eom_watch().reported() {
            self.synic.eom_reported();
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.add(Events::new(self.synic.eom_watch(), EventSet::IN)) {
            // Without the watch, a busy slot would never be refilled.
            error!("cannot watch for EOM: {error}");
        }
    }
}
