//! End of message (EOM): the signal that a busy message slot is free, without timer or polling.
//!
//! KVM signals an EOM by the resample eventfd of the SINT's irqfd on the VP that wrote it. That VP
//! may differ from the owner of the slot: Linux's panic path empties the slots of all VPs but
//! writes EOM only on its own. So all VPs share one resample eventfd, which causes a kick of each
//! VP with queued messages. The eventfd is watched only while a slot is busy. The epoll set that
//! watches it is one descriptor in the event loop.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

/// The eventfd of all EOMs, and the epoll set that watches it when needed.
pub(super) struct EomWatch {
    epoll: Epoll,
    event: EventFd,
}

impl EomWatch {
    /// Returns an eventfd that is not watched.
    pub(super) fn new() -> io::Result<EomWatch> {
        let event = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        let epoll = Epoll::new()?;
        epoll.ctl(
            ControlOperation::Add,
            event.as_raw_fd(),
            EpollEvent::new(EventSet::empty(), 0),
        )?;
        Ok(EomWatch { epoll, event })
    }

    /// Returns the resample eventfd of the irqfds of all VPs.
    pub(super) fn event(&self) -> &EventFd {
        &self.event
    }

    /// Watches for the next EOM. An EOM since the last [`EomWatch::take`] is reported immediately.
    pub(super) fn arm(&self) -> io::Result<()> {
        let once = EpollEvent::new(EventSet::IN | EventSet::ONE_SHOT, 0);
        self.epoll.ctl(ControlOperation::Modify, self.event.as_raw_fd(), once)
    }

    /// Returns whether there were EOMs since the last call. If so, the caller must kick each VP
    /// that has queued messages.
    pub(super) fn take(&self) -> bool {
        self.event.read().is_ok()
    }

    /// Returns whether the watch has an EOM to report, and if so ends the watch.
    pub(super) fn reported(&self) -> bool {
        let mut ready = [EpollEvent::default(); 1];
        self.epoll.wait(0, &mut ready).is_ok_and(|count| count != 0)
    }
}

impl AsRawFd for EomWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_watch_that_is_not_armed_reports_nothing_and_keeps_the_eom() {
        let watch = EomWatch::new().unwrap();
        watch.event.write(1).unwrap();
        assert!(!watch.reported());
        assert!(watch.take() && !watch.take());
    }

    #[test]
    fn test_watch_reports_an_eom_from_before_arming_immediately_and_once() {
        let watch = EomWatch::new().unwrap();
        watch.event.write(1).unwrap();
        watch.arm().unwrap();
        assert!(watch.reported());
        watch.event.write(1).unwrap();
        assert!(!watch.reported(), "not armed again");
        watch.arm().unwrap();
        assert!(watch.reported());
    }

    #[test]
    fn test_watch_reports_no_eom_that_was_taken_and_continues() {
        let watch = EomWatch::new().unwrap();
        watch.event.write(1).unwrap();
        watch.arm().unwrap();
        assert!(watch.take());
        assert!(!watch.reported());
        watch.event.write(1).unwrap();
        assert!(watch.reported());
    }
}
