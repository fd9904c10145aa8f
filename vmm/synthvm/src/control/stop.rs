//! SIGTERM, SIGINT and SIGHUP: the guest is asked to power down, then the machine is stopped.

use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::Arc;
use std::time::Duration;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use vmm_sys_util::timerfd::TimerFd;

use super::{ControlTarget, StopReason};

/// Signals that end a machine.
const SIGNALS: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// Blocks the stop signals: only a [`StopSignals`] receives them. Must be called before the first
/// thread starts, so that every thread inherits the mask.
///
/// # Errors
/// The system call's error.
pub fn block_stop_signals() -> io::Result<()> {
    let set = stop_set();
    // SAFETY: `set` is an initialised signal set; the null pointer means that the old set is not
    // returned.
    let error =
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// Returns a non-blocking descriptor from which [`StopSignal::read`] reads the signals that
/// [`block_stop_signals`] has blocked.
///
/// # Errors
/// No file descriptor is available.
pub fn stop_signals() -> io::Result<File> {
    let set = stop_set();
    // SAFETY: `set` is an initialised signal set; -1 requests a new descriptor.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and has no other owner.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// A signal that ends a machine or a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopSignal(i32);

impl StopSignal {
    /// Reads the next signal of [`stop_signals`].
    ///
    /// # Errors
    /// None is pending (`WouldBlock`).
    pub fn read(mut signals: &File) -> io::Result<Self> {
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        signals.read_exact(&mut info)?;
        // ssi_signo, a u32 in native byte order, is the first field (signalfd(2)).
        Ok(StopSignal(i32::from_ne_bytes([info[0], info[1], info[2], info[3]])))
    }

    /// Returns the signal's number.
    pub fn number(self) -> i32 {
        self.0
    }
}

/// Returns the stop signals, except those that the parent process set to be ignored (`nohup`,
/// background jobs of shells).
fn stop_set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the given set.
    let mut set = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    };
    for signal in SIGNALS.into_iter().filter(|signal| !is_ignored(*signal)) {
        // SAFETY: the set is initialised and the signal exists.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    set
}

fn is_ignored(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: with a null new action the call only returns the old one. If it fails, zeros are a
    // valid action.
    let action = unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
        action.assume_init()
    };
    action.sa_sigaction == libc::SIG_IGN
}

/// A handler of stop signals: the first asks the guest to power off and starts the grace period; a
/// second signal, or the end of the period, stops the machine. Register it with the event loop.
pub struct StopSignals {
    signals: File,
    timer: TimerFd,
    grace: Duration,
    first: Option<i32>,
    target: Arc<dyn ControlTarget>,
}

impl StopSignals {
    /// Watches for the signals that [`block_stop_signals`] has blocked. With a `grace` of zero, the
    /// first signal stops the machine.
    ///
    /// # Errors
    /// No file descriptor is available.
    pub fn new(grace: Duration, target: Arc<dyn ControlTarget>) -> io::Result<Self> {
        let signals = stop_signals()?;
        let timer = TimerFd::new().map_err(|error| io::Error::from_raw_os_error(error.errno()))?;
        Ok(StopSignals { signals, timer, grace, first: None, target })
    }

    pub(super) fn take_signals(&mut self) {
        while let Ok(signal) = StopSignal::read(&self.signals) {
            self.on_signal(signal.number());
        }
    }

    pub(super) fn on_signal(&mut self, signal: i32) {
        if self.first.is_some() || self.grace.is_zero() {
            tracing::warn!("signal {signal}: stopping the machine");
            return self.stop(signal);
        }
        self.first = Some(signal);
        let seconds = self.grace.as_secs();
        tracing::info!(
            "signal {signal}: asking the guest to power down; stopping it in {seconds} s, or at \
            the next signal"
        );
        let asked = self.target.power_off();
        let armed = self.timer.reset(self.grace, None).map_err(|error| error.to_string());
        if let Err(error) = asked.and(armed) {
            tracing::warn!("the guest cannot be asked ({error}): stopping the machine");
            self.stop(signal);
        }
    }

    pub(super) fn on_timer(&mut self) {
        // The number of expirations does not matter: the period ends once.
        let _ = self.timer.clear();
        if let Some(signal) = self.first {
            tracing::warn!(
                "the guest has not powered down in {} s: stopping the machine",
                self.grace.as_secs()
            );
            self.stop(signal);
        }
    }

    fn stop(&self, signal: i32) {
        if let Err(error) = self.target.stop(StopReason::Signal(signal)) {
            tracing::error!("cannot stop the machine: {error}");
        }
    }
}

impl MutEventSubscriber for StopSignals {
    fn process(&mut self, events: Events, _ops: &mut EventOps<'_>) {
        if events.fd() == self.signals.as_raw_fd() {
            self.take_signals();
        } else if events.fd() == self.timer.as_raw_fd() {
            self.on_timer();
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        for fd in [self.signals.as_raw_fd(), self.timer.as_raw_fd()] {
            if let Err(error) = ops.add(Events::new_raw(fd, EventSet::IN)) {
                tracing::error!(?error, "stop signals cannot be watched");
            }
        }
    }
}
