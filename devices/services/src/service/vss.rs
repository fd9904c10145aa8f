//! Backups: the guest's file systems are frozen, and always thawed again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::clock::Clock;
use crate::error::ServiceError;
use crate::operation::{Completion, Done, Operation, Single, Step, succeeded};
use crate::port::Background;
use crate::protocol::vss::{VssOperation, request};
use crate::protocol::{Agreed, Response, ServiceKind};
use crate::saved::SavedService;

/// The time that the guest has to answer whether it can be backed up, and to thaw.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The time that the guest has to freeze: it writes all its dirty pages first.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(120);

/// The time until a failed thaw is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// Maximum number of thaws that the guest may refuse in a row.
const MAX_REFUSED: u32 = 5;

/// Maximum time for which the guest can stay frozen.
pub const MAX_FROZEN: Duration = Duration::from_secs(900);

const KIND: ServiceKind = ServiceKind::Vss;

/// The file systems of a guest.
#[derive(Debug)]
pub(crate) struct Vss {
    clock: Clock,
    state: Mutex<State>,
    this: Weak<Self>,
}

#[derive(Debug, Default)]
struct State {
    /// The guest is frozen, or may be: the time at which it is thawed.
    thaw_at: Option<Instant>,
    /// The number of the freeze, so that the hold of an earlier one has no effect.
    freeze: u64,
    /// The channel is open, and a thaw can be sent.
    is_ready: bool,
    refused: u32,
}

impl Vss {
    pub(crate) fn new(clock: Clock) -> Arc<Self> {
        Arc::new_cyclic(|this| Self { clock, state: Mutex::default(), this: Weak::clone(this) })
    }

    /// Returns whether the guest is frozen, or may be.
    pub(crate) fn is_frozen(&self) -> bool {
        self.lock().thaw_at.is_some()
    }

    /// Returns the operation that freezes the guest for at most `time`. The result is the number of
    /// the freeze.
    pub(crate) fn freeze(&self, time: Duration, done: Done<u64>) -> Option<Box<dyn Operation>> {
        let completion = Completion::new(KIND, done);
        let time = time.min(MAX_FROZEN);
        Some(Box::new(Freeze { vss: self.this.upgrade()?, time, step: 0, completion }))
    }

    /// Returns the operation that thaws the guest.
    pub(crate) fn thaw(&self, done: Done<()>) -> Option<Box<dyn Operation>> {
        let vss = self.this.upgrade()?;
        let done: Done<()> = Box::new(move |result| {
            vss.thawed(&result);
            done(result);
        });
        let body = |_| Ok(request(VssOperation::Thaw));
        Some(Single::boxed(KIND, TIMEOUT, body, succeeded, done))
    }

    /// Lets the guest be thawed immediately, if it is still frozen by freeze number `freeze`.
    pub(crate) fn release(&self, freeze: u64) {
        let now = self.clock.now();
        let mut state = self.lock();
        if state.freeze == freeze
            && let Some(at) = &mut state.thaw_at
        {
            info!("the client that froze the guest has disconnected: thawing the guest");
            *at = now;
        }
    }

    /// Notes the result of a thaw.
    fn thawed(&self, result: &Result<(), ServiceError>) {
        let now = self.clock.now();
        let mut state = self.lock();
        match result {
            Ok(()) => (state.thaw_at, state.refused) = (None, 0),
            // It is sent again when the guest has connected again.
            Err(ServiceError::Closed(_)) => {}
            Err(ServiceError::Refused(_)) if state.refused >= MAX_REFUSED => {
                warn!("the guest refuses to thaw its file systems: giving up");
                (state.thaw_at, state.refused) = (None, 0);
            }
            Err(error) => {
                warn!(%error, "the guest's file systems are not thawed yet: trying again");
                state.refused += u32::from(matches!(error, ServiceError::Refused(_)));
                state.thaw_at = state.thaw_at.map(|_| now + RETRY);
            }
        }
    }

    /// Notes that the guest is frozen, or may be, until `at`. Returns the number of the freeze.
    fn frozen(&self, at: Instant) -> u64 {
        let mut state = self.lock();
        state.freeze += 1;
        state.thaw_at = Some(at);
        state.freeze
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Background for Vss {
    fn ready(&self, _agreed: Agreed, now: Instant) {
        let mut state = self.lock();
        state.is_ready = true;
        // The host has lost track of the freeze: this thaws the guest in any case.
        state.thaw_at = state.thaw_at.map(|_| now);
    }

    fn due(&self) -> Option<Instant> {
        let state = self.lock();
        state.thaw_at.filter(|_| state.is_ready)
    }

    fn operation(&self, _now: Instant) -> Option<Box<dyn Operation>> {
        self.thaw(Box::new(drop))
    }

    fn closed(&self) {
        self.lock().is_ready = false;
    }

    fn save(&self, saved: &mut SavedService) {
        saved.is_frozen = self.is_frozen();
    }

    fn restore(&self, saved: &SavedService) {
        self.lock().thaw_at = saved.is_frozen.then(|| self.clock.now());
    }
}

/// The operation that freezes the guest: it is asked whether it can, then to do it.
struct Freeze {
    vss: Arc<Vss>,
    time: Duration,
    /// Number of requests that were sent.
    step: u8,
    completion: Completion<u64>,
}

impl Operation for Freeze {
    fn next(&mut self, last: Option<Response>, _agreed: Agreed) -> Step {
        if let Some(response) = last
            && let Err(error) = succeeded(&response)
        {
            self.completion.call(Err(error));
            return Step::Done;
        }
        self.step += 1;
        match self.step {
            1 if self.vss.is_frozen() => {
                let message = "the guest is frozen already; thaw it first".to_owned();
                self.completion.call(Err(ServiceError::Argument(message)));
                Step::Done
            }
            1 => Step::Send { body: request(VssOperation::HotBackup), timeout: TIMEOUT },
            2 => Step::Send { body: request(VssOperation::Freeze), timeout: FREEZE_TIMEOUT },
            _ => {
                let freeze = self.vss.frozen(self.vss.clock.now() + self.time);
                self.completion.call(Ok(freeze));
                Step::Done
            }
        }
    }

    fn fail(mut self: Box<Self>, error: ServiceError) {
        if self.step == 2 {
            // The guest may freeze later, or has: it must be thawed.
            self.vss.frozen(self.vss.clock.now());
        }
        self.completion.call(Err(error));
    }
}
