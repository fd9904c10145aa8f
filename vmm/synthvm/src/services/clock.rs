//! The clocks of the host, for the guest's time.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use synthvm_machine::{ClockReading, ReferenceClock};
use synthvm_services::HostClock;
use synthvm_services::protocol::time::{HostTime, UNIX_EPOCH};

use super::GuestServices;

/// The host's clock next to the guest's reference time.
#[derive(Debug)]
pub(super) struct MachineClock(ReferenceClock);

impl MachineClock {
    pub(super) fn new(clock: ReferenceClock) -> Self {
        Self(clock)
    }
}

impl HostClock for MachineClock {
    fn now(&self) -> io::Result<HostTime> {
        let ClockReading { utc_ns, reference_ns } = self.0.read()?;
        Ok(HostTime { utc: UNIX_EPOCH + utc_ns / 100, reference: reference_ns / 100 })
    }
}

/// Sets the guest's clock when the host's clock was set, which includes the end of a suspension of
/// the host. Register it with the event loop.
#[derive(Debug)]
pub struct ClockWatch {
    timer: OwnedFd,
    services: GuestServices,
}

impl ClockWatch {
    /// # Errors
    /// No file descriptor is available.
    pub fn new(services: GuestServices) -> io::Result<Self> {
        let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
        // SAFETY: the call takes numbers.
        let fd = unsafe { libc::timerfd_create(libc::CLOCK_REALTIME, flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and has no other owner.
        let timer = unsafe { OwnedFd::from_raw_fd(fd) };
        let watch = Self { timer, services };
        watch.arm()?;
        Ok(watch)
    }

    /// Arms the timer for a time that never comes: it only reports that the clock was set.
    fn arm(&self) -> io::Result<()> {
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // In 2242: before the end of the kernel's times, which are 63 bits of nanoseconds.
        let never = libc::timespec { tv_sec: 1 << 33, tv_nsec: 0 };
        let new = libc::itimerspec { it_interval: zero, it_value: never };
        let flags = libc::TFD_TIMER_ABSTIME | libc::TFD_TIMER_CANCEL_ON_SET;
        let old = std::ptr::null_mut();
        // SAFETY: `new` is initialised, and the null pointer means that the old time is not
        // returned.
        let result =
            unsafe { libc::timerfd_settime(self.timer.as_raw_fd(), flags, &raw const new, old) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl MutEventSubscriber for ClockWatch {
    fn process(&mut self, _events: Events, ops: &mut EventOps<'_>) {
        // Arming discards the event that the clock was set.
        if let Err(error) = self.arm() {
            tracing::error!(%error, "the host's clock cannot be watched any more");
            let _ = ops.remove(Events::empty(&self.timer));
        }
        tracing::info!("the host's clock was set: setting the guest's");
        if let Some(services) = &self.services.services {
            services.host_clock_changed();
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.add(Events::new(&self.timer, EventSet::IN)) {
            tracing::error!(?error, "the host's clock cannot be watched");
        }
    }
}
