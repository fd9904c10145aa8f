//! Time synchronisation: the guest's clock is set when its driver starts, after a pause or a
//! restore, and on request. In between it gets samples.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::ServiceError;
use crate::operation::{Done, Operation, Single, succeeded};
use crate::port::Background;
use crate::protocol::time::{HostTime, TimeMessage, message};
use crate::protocol::{Agreed, ServiceKind};

/// The interval of time samples. Linux uses them as a precise clock (ptp_hyperv), and a sample
/// names its moment by the reference time, so a longer interval costs only the drift between both
/// clocks of the host: less than 2 ms.
pub const SAMPLE_INTERVAL: Duration = Duration::from_secs(30);

/// The time that the guest has to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The host's clocks.
pub trait HostClock: Send + Sync + fmt::Debug {
    /// Returns the current moment in both clocks, read together.
    ///
    /// # Errors
    /// The system's.
    fn now(&self) -> io::Result<HostTime>;
}

/// The time synchronisation of a guest.
#[derive(Debug)]
pub(crate) struct TimeSync {
    clock: Arc<dyn HostClock>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    due: Option<Instant>,
    /// The next message sets the guest's clock.
    must_set: bool,
}

impl TimeSync {
    pub(crate) fn new(clock: Arc<dyn HostClock>) -> Arc<Self> {
        Arc::new(Self { clock, state: Mutex::default() })
    }

    /// Returns the operation that sets the guest's clock.
    pub(crate) fn set(&self, done: Done<()>) -> Box<dyn Operation> {
        self.send(TimeMessage::Sync, done)
    }

    /// Lets the next message, which is due immediately, set the guest's clock.
    pub(crate) fn request_set(&self, now: Instant) {
        let mut state = self.lock();
        state.must_set = true;
        state.due = state.due.map(|_| now);
    }

    /// The time is read just before the message is sent.
    fn send(&self, kind: TimeMessage, done: Done<()>) -> Box<dyn Operation> {
        let clock = Arc::clone(&self.clock);
        Single::boxed(
            ServiceKind::TimeSync,
            TIMEOUT,
            move |agreed: Agreed| match clock.now() {
                Ok(time) => Ok(message(agreed.message, kind, time)),
                Err(error) => Err(ServiceError::Host(format!("the machine's clock: {error}"))),
            },
            succeeded,
            done,
        )
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Background for TimeSync {
    fn ready(&self, _agreed: Agreed, now: Instant) {
        *self.lock() = State { due: Some(now), must_set: true };
    }

    fn due(&self) -> Option<Instant> {
        self.lock().due
    }

    fn operation(&self, now: Instant) -> Option<Box<dyn Operation>> {
        let mut state = self.lock();
        state.due = Some(now + SAMPLE_INTERVAL);
        let must_set = std::mem::take(&mut state.must_set);
        drop(state);
        let kind = if must_set { TimeMessage::Sync } else { TimeMessage::Sample };
        Some(self.send(kind, Box::new(drop)))
    }

    fn closed(&self) {
        *self.lock() = State::default();
    }

    fn resumed(&self, now: Instant) {
        self.request_set(now);
    }
}
