//! A channel's access to the backend: a queue of its own, or one that all channels share.

use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use synthvm_net::Queue;

/// The queue of one channel.
pub(crate) enum ChannelQueue {
    /// A queue of the channel alone.
    Own(Box<dyn Queue>),
    /// The only queue of the backend. All channels send on it; the primary channel receives.
    Shared(Arc<SharedQueue>),
}

impl ChannelQueue {
    /// Calls `with` with the queue. `None`: the primary channel has closed it.
    #[inline]
    pub(crate) fn with<T>(&mut self, with: impl FnOnce(&mut dyn Queue) -> T) -> Option<T> {
        match self {
            Self::Own(queue) => Some(with(&mut **queue)),
            Self::Shared(shared) => shared.lock().as_mut().map(|queue| with(&mut **queue)),
        }
    }

    /// Returns the event of a frame to receive ([`Queue::event`]).
    pub(crate) fn event(&self) -> Option<RawFd> {
        self.ask(|queue| queue.event()).flatten()
    }

    /// Returns the event of space to send ([`Queue::space_event`]).
    pub(crate) fn space_event(&self) -> Option<RawFd> {
        self.ask(|queue| queue.space_event()).flatten()
    }

    /// Returns true if the queue keeps a part of a frame ([`Queue::has_unsent`]).
    pub(crate) fn has_unsent(&self) -> bool {
        self.ask(|queue| queue.has_unsent()).unwrap_or(false)
    }

    fn ask<T>(&self, ask: impl FnOnce(&dyn Queue) -> T) -> Option<T> {
        match self {
            Self::Own(queue) => Some(ask(&**queue)),
            Self::Shared(shared) => shared.lock().as_ref().map(|queue| ask(&**queue)),
        }
    }
}

/// The only queue of a backend, until the primary channel closes.
pub(crate) struct SharedQueue(Mutex<Option<Box<dyn Queue>>>);

impl SharedQueue {
    pub(crate) fn new(queue: Box<dyn Queue>) -> Self {
        Self(Mutex::new(Some(queue)))
    }

    /// Closes the queue: the next opening of the card needs it, and subchannels of this one may
    /// end later.
    pub(crate) fn close(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<dyn Queue>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
