//! One descriptor for the events of several queues.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use synthvm_block::Queue;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// One descriptor that is readable while any queue's event is.
pub(super) enum Events {
    /// No event: every queue finishes its requests in submit.
    None,
    /// The event of one queue.
    One(RawFd),
    /// An epoll descriptor, which can itself be watched.
    Many(Epoll),
}

impl Events {
    /// Returns the events of `queues`, and of another descriptor if there is one.
    pub(super) fn of(queues: &[Box<dyn Queue>], other: Option<RawFd>) -> io::Result<Self> {
        let events: Vec<RawFd> =
            queues.iter().filter_map(|queue| queue.event()).chain(other).collect();
        match events[..] {
            [] => Ok(Self::None),
            [event] => Ok(Self::One(event)),
            _ => {
                let epoll = Epoll::new()?;
                for event in events {
                    epoll.ctl(ControlOperation::Add, event, EpollEvent::new(EventSet::IN, 0))?;
                }
                Ok(Self::Many(epoll))
            }
        }
    }

    pub(super) fn descriptor(&self) -> Option<RawFd> {
        match self {
            Self::None => None,
            Self::One(event) => Some(*event),
            Self::Many(epoll) => Some(epoll.as_raw_fd()),
        }
    }
}
