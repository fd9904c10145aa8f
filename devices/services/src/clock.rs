//! The clock of timeouts and intervals, and the timer that wakes a channel's worker.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use vmm_sys_util::timerfd::TimerFd;

/// The clock of timeouts and intervals. Clones are the same clock.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// `None`: the system's.
    manual: Option<Arc<Mutex<Instant>>>,
}

impl Clock {
    /// Returns a clock that stands still until [`Clock::advance`], for tests with inline workers.
    pub fn manual() -> Self {
        Self { manual: Some(Arc::new(Mutex::new(Instant::now()))) }
    }

    /// Moves a manual clock. Has no effect on the system's.
    pub fn advance(&self, by: Duration) {
        if let Some(manual) = &self.manual {
            *manual.lock().unwrap_or_else(PoisonError::into_inner) += by;
        }
    }

    /// Returns the current time.
    pub(crate) fn now(&self) -> Instant {
        match &self.manual {
            Some(manual) => *manual.lock().unwrap_or_else(PoisonError::into_inner),
            None => Instant::now(),
        }
    }
}

/// A timer whose descriptor is readable when its time has come.
#[derive(Debug)]
pub(crate) struct Timer {
    clock: Clock,
    timer: TimerFd,
    armed: Option<Instant>,
}

impl Timer {
    /// # Errors
    /// The system is out of file descriptors.
    pub(crate) fn new(clock: Clock) -> io::Result<Self> {
        let timer = TimerFd::new().map_err(|error| io::Error::from_raw_os_error(error.errno()))?;
        Ok(Self { clock, timer, armed: None })
    }

    /// Sets the time, which replaces the last one. `None`: never. With a manual clock the
    /// descriptor never becomes readable.
    pub(crate) fn arm(&mut self, at: Option<Instant>) {
        if self.armed == at || self.clock.manual.is_some() {
            return;
        }
        self.armed = at;
        // The calls fail only for invalid times.
        let _ = match at {
            // Zero would disarm the timer.
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now());
                self.timer.reset(left.max(Duration::from_nanos(1)), None)
            }
            None => self.timer.clear(),
        };
    }

    /// Makes the descriptor unreadable if the time has come. [`Timer::arm`] must follow.
    pub(crate) fn clear(&mut self, now: Instant) {
        if self.armed.is_some_and(|at| at <= now) {
            self.armed = None;
            // Setting a timer discards its expirations.
            let _ = self.timer.clear();
        }
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.timer.as_raw_fd()
    }
}
