//! Heartbeats: whether the guest is alive.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::error::ServiceError;
use crate::operation::{Operation, Single, succeeded};
use crate::port::Background;
use crate::protocol::heartbeat::{self, ApplicationState};
use crate::protocol::{Agreed, ServiceKind};
use crate::saved::SavedService;

/// The interval of heartbeats. Each wakes the host twice: for the request and for the response.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);

/// Number of missed heartbeats in a row after which the guest is lost.
pub const MAX_MISSED: u32 = 5;

/// The time that the guest has to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The result of the last heartbeats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// The guest's driver has not connected.
    #[default]
    NoDriver,
    /// The guest answers, or has missed fewer than [`MAX_MISSED`] heartbeats.
    Alive(ApplicationState),
    /// The guest has missed [`MAX_MISSED`] heartbeats.
    Lost,
}

/// The heartbeats of a guest.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    clock: Clock,
    state: Mutex<State>,
    this: Weak<Self>,
}

#[derive(Debug, Default)]
struct State {
    sequence: u64,
    is_connected: bool,
    missed: u32,
    application: ApplicationState,
    due: Option<Instant>,
}

impl Heartbeat {
    pub(crate) fn new(clock: Clock) -> Arc<Self> {
        Arc::new_cyclic(|this| Self { clock, state: Mutex::default(), this: Weak::clone(this) })
    }

    pub(crate) fn health(&self) -> Health {
        let state = self.lock();
        match state.missed {
            _ if !state.is_connected => Health::NoDriver,
            0..MAX_MISSED => Health::Alive(state.application),
            _ => Health::Lost,
        }
    }

    /// Takes the result of a heartbeat with this sequence number.
    fn answered(&self, sequence: u64, result: &Result<(u64, ApplicationState), ServiceError>) {
        let mut state = self.lock();
        let now = self.clock.now();
        match result {
            Ok((answer, application)) if *answer == sequence.wrapping_add(1) => {
                (state.missed, state.application) = (0, *application);
                state.due = Some(now + HEARTBEAT_INTERVAL);
            }
            // The channel is closing: there are no more heartbeats.
            Err(ServiceError::Closed(_)) => {}
            // No answer, or a wrong one. The next heartbeat follows at once, so that a guest that
            // does not answer is lost sooner.
            Ok(_) | Err(_) => {
                state.missed = state.missed.saturating_add(1);
                let is_lost = state.missed >= MAX_MISSED;
                state.due = Some(if is_lost { now + HEARTBEAT_INTERVAL } else { now });
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Background for Heartbeat {
    fn ready(&self, _agreed: Agreed, now: Instant) {
        let mut state = self.lock();
        let sequence = state.sequence;
        *state = State { sequence, is_connected: true, due: Some(now), ..State::default() };
    }

    fn due(&self) -> Option<Instant> {
        self.lock().due
    }

    fn operation(&self, now: Instant) -> Option<Box<dyn Operation>> {
        let this = self.this.upgrade()?;
        let mut state = self.lock();
        state.sequence = state.sequence.wrapping_add(2);
        state.due = Some(now + HEARTBEAT_INTERVAL);
        let sequence = state.sequence;
        drop(state);
        Some(Single::boxed(
            ServiceKind::Heartbeat,
            TIMEOUT,
            move |_| Ok(heartbeat::request(sequence)),
            |response| {
                succeeded(response)?;
                let invalid = ServiceError::Invalid(ServiceKind::Heartbeat);
                heartbeat::response(&response.body).ok_or(invalid)
            },
            Box::new(move |result| this.answered(sequence, &result)),
        ))
    }

    fn late(&self) {
        // A guest that answers late is slow, and alive.
        self.lock().missed = 0;
    }

    fn closed(&self) {
        let mut state = self.lock();
        *state = State { sequence: state.sequence, ..State::default() };
    }

    fn resumed(&self, now: Instant) {
        let mut state = self.lock();
        state.missed = 0;
        state.due = state.due.map(|_| now);
    }

    fn save(&self, saved: &mut SavedService) {
        saved.sequence = self.lock().sequence;
    }

    fn restore(&self, saved: &SavedService) {
        self.lock().sequence = saved.sequence;
    }
}
