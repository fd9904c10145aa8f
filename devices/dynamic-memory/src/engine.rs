//! The device without a channel and without threads: a packet in, messages out.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::host::HostMemory;
use crate::policy::Bounds;
use crate::protocol::Session;
use crate::state::{SetError, State, Status};

/// The device as a guest's packets reach it, for fuzzing and for measurements.
pub struct Engine {
    state: State,
    session: Session,
}

impl Engine {
    /// Returns a device whose channel was just opened.
    pub fn new(bounds: Bounds, host: Arc<dyn HostMemory>) -> Self {
        Self { state: State::new(bounds, host), session: Session::new(bounds.max) }
    }

    /// Handles a packet, and returns the messages to the guest. `now`: the time since some moment.
    /// `shared`: the pages of GPADLs, sorted and never overlapping.
    pub fn packet(&mut self, packet: &[u8], now: Duration, shared: &[Range<u64>]) -> Vec<Vec<u8>> {
        self.state.packet(&mut self.session, packet, now, || shared.to_vec())
    }

    /// Sets the size that the guest shall have: see [`crate::DynamicMemory::set_size`]. Returns the
    /// messages to the guest.
    ///
    /// # Errors
    /// [`SetError`].
    pub fn set_size(
        &mut self,
        bytes: Option<u64>,
        now: Duration,
    ) -> Result<Vec<Vec<u8>>, SetError> {
        self.state.set_wanted(bytes)?;
        Ok(self.state.act(&mut self.session, now))
    }

    /// Closes the channel, and opens it again.
    pub fn reopen(&mut self) {
        self.state.disconnect();
        self.session = Session::new(self.state.bounds.max);
    }

    /// Returns the state.
    pub fn status(&self, now: Duration) -> Status {
        self.state.status(now)
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("session", &self.session).finish_non_exhaustive()
    }
}
