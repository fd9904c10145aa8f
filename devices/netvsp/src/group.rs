//! The channels of one card, from the opening of the primary channel to its closing.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use synthvm_net::Backend;

use crate::config::Config;
use crate::inbox::Inbox;
use crate::packet::HeaderPool;
use crate::protocol::limits::MAX_CHANNELS;
use crate::queue::{ChannelQueue, SharedQueue};

/// The state that the channels of one card share.
pub(crate) struct ChannelGroup {
    config: Mutex<Arc<Config>>,
    /// Incremented with each new configuration; channels compare it before they take the lock.
    generation: AtomicU32,
    inboxes: Box<[Inbox]>,
    /// Incremented with each opening of a channel, and with each closing. Openings of restored
    /// channels have the number of the channel, so others begin after all of those.
    openings: AtomicU32,
    closings: AtomicU32,
    /// The primary channel receives the frames of all. It may be false only for a backend with one
    /// queue.
    is_receiving: AtomicBool,
    /// The queue of a backend that has only one.
    shared_queue: Option<Arc<SharedQueue>>,
    headers: HeaderPool,
}

impl ChannelGroup {
    /// Returns the group of a card with up to `max_channels` channels, all closed, over `backend`.
    ///
    /// # Errors
    /// The backend's, or the system is out of file descriptors.
    pub(crate) fn new(backend: &dyn Backend, max_channels: u16) -> io::Result<Self> {
        let is_shared = backend.queues() == 1 && max_channels > 1;
        let shared_queue =
            if is_shared { Some(Arc::new(SharedQueue::new(backend.queue(0)?))) } else { None };
        let inboxes = (0..max_channels).map(|_| Inbox::new()).collect::<io::Result<_>>()?;
        Ok(Self {
            config: Mutex::default(),
            generation: AtomicU32::new(0),
            inboxes,
            openings: AtomicU32::new(MAX_CHANNELS.into()),
            closings: AtomicU32::new(0),
            is_receiving: AtomicBool::new(true),
            shared_queue,
            headers: HeaderPool::default(),
        })
    }

    /// Notes that channel `index` was opened. Returns the number of this opening, and the channel's
    /// queue to `backend`.
    ///
    /// # Errors
    /// The card has no such channel, or the backend cannot open the queue.
    pub(crate) fn open(
        &self,
        index: u16,
        backend: &dyn Backend,
    ) -> io::Result<(u32, ChannelQueue)> {
        let inbox = self.inbox(index).ok_or(io::ErrorKind::InvalidInput)?;
        let queue = self.queue(index, backend)?;
        let opening = self.openings.fetch_add(1, Ordering::AcqRel) + 1;
        inbox.open(opening);
        Ok((opening, queue))
    }

    /// Notes that channel `index` is open after a restore, as [`ChannelGroup::open`] does. The
    /// number of the opening follows from the channel's, so that packets from before are known to
    /// belong to it.
    ///
    /// # Errors
    /// See [`ChannelGroup::open`].
    pub(crate) fn restore(
        &self,
        index: u16,
        backend: &dyn Backend,
    ) -> io::Result<(u32, ChannelQueue)> {
        if index == 0 {
            return self.open(index, backend);
        }
        let inbox = self.inbox(index).ok_or(io::ErrorKind::InvalidInput)?;
        let queue = self.queue(index, backend)?;
        self.openings.fetch_add(1, Ordering::AcqRel);
        inbox.open(index.into());
        Ok((index.into(), queue))
    }

    /// Notes that opening `opening` of channel `index` has ended. With the primary channel, the
    /// connection ends: the other channels then touch neither buffer.
    pub(crate) fn close(&self, index: u16, opening: u32) {
        if let Some(inbox) = self.inbox(index) {
            inbox.close(opening);
        }
        self.closings.fetch_add(1, Ordering::AcqRel);
        if index == 0 {
            self.publish(Arc::default());
            if let Some(queue) = &self.shared_queue {
                queue.close();
            }
        }
    }

    /// Returns the number of configurations so far.
    #[inline]
    pub(crate) fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// Returns the current configuration.
    pub(crate) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.lock())
    }

    /// Replaces the configuration. Sleeping channels must be woken.
    pub(crate) fn publish(&self, config: Arc<Config>) {
        let old = std::mem::replace(&mut *self.lock(), config);
        self.generation.fetch_add(1, Ordering::AcqRel);
        // Outside the lock: this may end the mapping of a buffer.
        drop(old);
    }

    /// Returns the inbox of channel `index`. `None`: the card has no such channel.
    #[inline]
    pub(crate) fn inbox(&self, index: u16) -> Option<&Inbox> {
        self.inboxes.get(usize::from(index))
    }

    /// Returns true if channels 0 to `last` are open.
    pub(crate) fn are_open(&self, last: u16) -> bool {
        (0..=last).all(|index| self.inbox(index).is_some_and(|inbox| inbox.opening().is_some()))
    }

    /// Returns the number of openings of channels so far.
    #[inline]
    pub(crate) fn openings(&self) -> u32 {
        self.openings.load(Ordering::Acquire)
    }

    /// Returns the number of closings of channels so far.
    #[inline]
    pub(crate) fn closings(&self) -> u32 {
        self.closings.load(Ordering::Acquire)
    }

    /// Returns true if the primary channel receives the frames of all channels.
    pub(crate) fn has_one_reader(&self) -> bool {
        self.shared_queue.is_some()
    }

    /// Notes whether the primary channel can receive frames for all channels. When it no longer
    /// can, it wakes them: none may wait for the backend then.
    #[inline]
    pub(crate) fn set_reception(&self, is_receiving: bool) {
        if self.is_receiving.load(Ordering::Relaxed) != is_receiving {
            self.is_receiving.store(is_receiving, Ordering::SeqCst);
            if !is_receiving {
                self.inboxes.iter().skip(1).for_each(Inbox::reception_ended);
            }
        }
    }

    /// Returns true if the primary channel receives the frames of all channels at present.
    pub(crate) fn is_receiving(&self) -> bool {
        self.is_receiving.load(Ordering::SeqCst)
    }

    /// Returns the memory of the headers of packets.
    pub(crate) fn headers(&self) -> &HeaderPool {
        &self.headers
    }

    fn queue(&self, index: u16, backend: &dyn Backend) -> io::Result<ChannelQueue> {
        Ok(match &self.shared_queue {
            Some(queue) => ChannelQueue::Shared(Arc::clone(queue)),
            None => ChannelQueue::Own(backend.queue(index.into())?),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Config>> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
