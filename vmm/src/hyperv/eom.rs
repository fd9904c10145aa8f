//! End of message: how a VP whose slot was busy learns that it is free, without a timer and without polling.
//!
//! The resample eventfds of all VPs hang in an epoll set of their own, each disarmed until a message waits on its VP.
//! The set itself is one descriptor in the event loop.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use tracing::error;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent};
use vmm_sys_util::eventfd::EventFd;

use super::synic::KickVp;

/// The epoll set.
pub struct EomWatch {
    epoll: Epoll,
    events: std::sync::Mutex<Vec<Arc<EventFd>>>,
}

impl EomWatch {
    pub(super) fn new() -> io::Result<EomWatch> {
        Ok(EomWatch { epoll: Epoll::new()?, events: std::sync::Mutex::default() })
    }

    /// Adds the eventfd of `vp`, disarmed. VPs come in order.
    pub(super) fn add(&self, vp: u32, event: Arc<EventFd>) -> io::Result<()> {
        let disarmed = EpollEvent::new(EventSet::empty(), vp.into());
        self.epoll.ctl(ControlOperation::Add, event.as_raw_fd(), disarmed)?;
        self.events.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(event);
        Ok(())
    }

    /// Watches for one EOM of `vp`. If one has come already, it is reported at once.
    pub(super) fn arm(&self, vp: u32) -> io::Result<()> {
        let events = self.events.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let event = events.get(vp as usize).ok_or_else(|| io::Error::other("no such VP"))?;
        let once = EpollEvent::new(EventSet::IN | EventSet::ONE_SHOT, vp.into());
        self.epoll.ctl(ControlOperation::Modify, event.as_raw_fd(), once)
    }

    /// The VPs that have written EOM since they were armed. Each is disarmed by being listed.
    fn take(&self) -> io::Result<Vec<u32>> {
        let mut ready = [EpollEvent::default(); 64];
        let count = self.epoll.wait(0, &mut ready)?;
        Ok(ready[..count].iter().map(|event| event.data() as u32).collect())
    }
}

impl AsRawFd for EomWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}

/// Kicks VPs that wrote EOM. For the event loop.
pub struct EomWatcher {
    watch: Arc<EomWatch>,
    kicker: Arc<dyn KickVp>,
}

impl EomWatcher {
    /// Watches `watch` and kicks by `kicker`.
    pub fn new(watch: Arc<EomWatch>, kicker: Arc<dyn KickVp>) -> EomWatcher {
        EomWatcher { watch, kicker }
    }
}

impl MutEventSubscriber for EomWatcher {
    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        for vp in self.watch.take().unwrap_or_default() {
            self.kicker.kick(vp);
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.add(Events::new(&*self.watch, EventSet::IN)) {
            // Without it a full slot would never be refilled.
            error!("cannot watch for EOM: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(vps: u32) -> (EomWatch, Vec<Arc<EventFd>>) {
        let watch = EomWatch::new().unwrap();
        let events: Vec<_> = (0..vps).map(|_| Arc::new(EventFd::new(libc::EFD_NONBLOCK).unwrap())).collect();
        for (vp, event) in events.iter().enumerate() {
            watch.add(vp as u32, Arc::clone(event)).unwrap();
        }
        (watch, events)
    }

    #[test]
    fn test_take_disarmed_vp_is_never_reported() {
        let (watch, events) = watch(2);
        events[1].write(1).unwrap();
        assert!(watch.take().unwrap().is_empty());
    }

    #[test]
    fn test_take_eom_before_arming_is_reported_and_once_only() {
        let (watch, events) = watch(2);
        events[1].write(1).unwrap();
        watch.arm(1).unwrap();
        assert_eq!(watch.take().unwrap(), [1]);
        events[1].write(1).unwrap();
        assert!(watch.take().unwrap().is_empty(), "not armed again");
        watch.arm(1).unwrap();
        assert_eq!(watch.take().unwrap(), [1]);
    }
}
