//! The timer of the firmware's watchdog.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::error;
use vmm_sys_util::timerfd::TimerFd;

/// A timer for the deadline of the BIOS device.
pub(super) struct Watchdog {
    /// The moment that the device counts from.
    start: Instant,
    timer: Mutex<TimerFd>,
    /// The timer's descriptor again, for the event loop.
    watched: RawFd,
}

impl Watchdog {
    /// Returns a timer that is off.
    pub(super) fn new(start: Instant) -> io::Result<Watchdog> {
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

    /// Returns the descriptor for the event loop.
    pub(super) fn descriptor(&self) -> RawFd {
        self.watched
    }
}
