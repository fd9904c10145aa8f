//! The timer of the firmware's watchdog, in the event loop.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use tracing::{error, warn};
use vmm_sys_util::timerfd::TimerFd;

use super::devices::BiosPorts;
use crate::devices::{Power, PowerRequest};
use crate::machine::Subscriber;

/// A timer for the deadline of the BIOS device.
pub(super) struct Watchdog {
    /// The moment that the device counts from.
    start: Instant,
    timer: Mutex<TimerFd>,
    /// The timer's descriptor again, for the event loop.
    watched: i32,
}

/// Resets the machine when the deadline has passed.
struct Expiry {
    ports: Arc<BiosPorts>,
    power: Arc<dyn Power>,
}

impl Watchdog {
    /// Returns a timer that is off.
    pub(super) fn new(start: Instant) -> io::Result<Watchdog> {
        use std::os::fd::AsRawFd;
        let timer = TimerFd::new()?;
        Ok(Watchdog { start, watched: timer.as_raw_fd(), timer: Mutex::new(timer) })
    }

    /// Sets the timer to the deadline, or off.
    pub(super) fn set(&self, deadline: Option<Duration>) {
        let mut timer = self.timer.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = match deadline {
            // A timer of zero would be off.
            Some(deadline) => {
                let left = deadline.saturating_sub(self.start.elapsed());
                timer.reset(left.max(Duration::from_millis(1)), None)
            }
            None => timer.clear(),
        };
        if let Err(error) = outcome {
            error!("firmware watchdog: {error}");
        }
    }

    /// Returns the event loop's part.
    pub(super) fn subscriber(ports: &Arc<BiosPorts>, power: Arc<dyn Power>) -> Subscriber {
        Box::new(Expiry { ports: Arc::clone(ports), power })
    }
}

impl MutEventSubscriber for Expiry {
    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        let mut device = self.ports.device();
        let expired = device.expire();
        // Also ends the timer's event: a deadline that was moved is still to come.
        self.ports.watchdog.set(device.deadline());
        drop(device);
        if expired {
            warn!("the firmware's watchdog expired; the machine is reset");
            self.power.request(PowerRequest::Reset);
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        let events = Events::new_raw(self.ports.watchdog.watched, EventSet::IN);
        if let Err(error) = ops.add(events) {
            error!("cannot watch the firmware's watchdog: {error}");
        }
    }
}
