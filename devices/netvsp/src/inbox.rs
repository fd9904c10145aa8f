//! A channel's inbox: packets and completions that other channels of the card pass to it.
//!
//! Each ring has one writer, the worker of its channel. A channel that reads a frame for another
//! channel therefore hands the finished packet over, and a channel to which the guest returns a
//! sub-allocation of another channel hands the completion over.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::packet::NetPacket;

/// A packet for the ring of another channel, with its transaction id.
pub(crate) type Arrival = (u64, NetPacket);

/// The inbox of one channel.
#[derive(Debug)]
pub(crate) struct Inbox {
    content: Mutex<Content>,
    /// Hints, so that a channel takes the lock only if there is something to take.
    has_arrivals: AtomicBool,
    has_returns: AtomicBool,
    /// A [`Sleep`], or [`AWAKE`].
    sleep: AtomicU8,
    /// Readable after a wake-up.
    event: EventFd,
    /// The event of an ended sleep is not read yet. For the channel's own worker only.
    owes_read: AtomicBool,
}

#[derive(Debug, Default)]
struct Content {
    /// The opening of the channel, a number that no other opening has. `None` while it is closed.
    opening: Option<u32>,
    arrivals: Vec<Arrival>,
    /// Transaction ids of packets that the guest has completed on other channels.
    returns: Vec<u64>,
}

/// A sleep of the worker, by the events that end it. Each kind includes those above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Sleep {
    /// Packets.
    Packets = 1,
    /// Completions: no sub-allocation is free.
    Completions,
    /// The end of reception: a message waits for the backend.
    Reception,
}

/// The worker runs.
const AWAKE: u8 = 0;

impl Inbox {
    /// Returns the inbox of a closed channel.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            content: Mutex::default(),
            has_arrivals: AtomicBool::new(false),
            has_returns: AtomicBool::new(false),
            sleep: AtomicU8::new(AWAKE),
            event: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            owes_read: AtomicBool::new(false),
        })
    }

    /// Notes that the channel was opened.
    pub(crate) fn open(&self, opening: u32) {
        *self.lock() = Content { opening: Some(opening), ..Content::default() };
    }

    /// Notes that opening `opening` of the channel has ended, and drops what nobody reads any more.
    pub(crate) fn close(&self, opening: u32) {
        let mut content = self.lock();
        if content.opening == Some(opening) {
            *content = Content::default();
        }
    }

    /// Returns the channel's opening. `None`: it is closed.
    pub(crate) fn opening(&self) -> Option<u32> {
        self.lock().opening
    }

    /// Passes a packet to the channel. Returns the opening that gets it.
    ///
    /// # Errors
    /// The channel is closed; the packet comes back.
    pub(crate) fn pass(&self, transaction: u64, packet: NetPacket) -> Result<u32, NetPacket> {
        let mut content = self.lock();
        let Some(opening) = content.opening else { return Err(packet) };
        content.arrivals.push((transaction, packet));
        self.has_arrivals.store(true, Ordering::SeqCst);
        drop(content);
        self.wake(Sleep::Packets);
        Ok(opening)
    }

    /// Passes completions of the guest to the channel that owns their sub-allocations, and empties
    /// `returns`. The inbox keeps `limit` at most: more than a buffer has sub-allocations are not
    /// of a sane guest.
    pub(crate) fn give_back(&self, returns: &mut Vec<u64>, limit: usize) {
        let mut content = self.lock();
        let space = limit.saturating_sub(content.returns.len());
        content.returns.extend(returns.drain(..).take(space));
        self.has_returns.store(true, Ordering::SeqCst);
        drop(content);
        self.wake(Sleep::Completions);
    }

    /// Returns true if there is something to take.
    #[inline]
    pub(crate) fn has_work(&self) -> bool {
        self.has_arrivals.load(Ordering::SeqCst) || self.has_returns.load(Ordering::SeqCst)
    }

    /// Moves the packets to `to`, which is empty. Returns false if there is none.
    #[inline]
    pub(crate) fn take_arrivals(&self, to: &mut Vec<Arrival>) -> bool {
        if !self.has_arrivals.load(Ordering::SeqCst) {
            return false;
        }
        let mut content = self.lock();
        self.has_arrivals.store(false, Ordering::SeqCst);
        std::mem::swap(&mut content.arrivals, to);
        !to.is_empty()
    }

    /// Moves the completions to `to`, which is empty. Returns false if there is none.
    #[inline]
    pub(crate) fn take_returns(&self, to: &mut Vec<u64>) -> bool {
        if !self.has_returns.load(Ordering::SeqCst) {
            return false;
        }
        let mut content = self.lock();
        self.has_returns.store(false, Ordering::SeqCst);
        std::mem::swap(&mut content.returns, to);
        !to.is_empty()
    }

    /// Calls `with` with everything that waits, for a save.
    pub(crate) fn visit<T>(&self, with: impl FnOnce(&[Arrival], &[u64]) -> T) -> T {
        let content = self.lock();
        with(&content.arrivals, &content.returns)
    }

    /// Makes the event readable when there is something to take. Returns the event.
    pub(crate) fn prepare_sleep(&self, sleep: Sleep) -> RawFd {
        self.sleep.store(sleep as u8, Ordering::SeqCst);
        // Something that came before the store has woken nobody.
        let has_work = self.has_arrivals.load(Ordering::SeqCst)
            || (sleep >= Sleep::Completions && self.has_returns.load(Ordering::SeqCst));
        if has_work {
            self.wake(Sleep::Packets);
        }
        self.event.as_raw_fd()
    }

    /// Ends a sleep that [`Inbox::prepare_sleep`] began.
    pub(crate) fn end_sleep(&self) {
        let was_woken = self.sleep.swap(AWAKE, Ordering::SeqCst) == AWAKE;
        if was_woken || self.owes_read.load(Ordering::Relaxed) {
            // It fails if the waking thread has not written yet: the next sleep is short then, and
            // its end must read. Otherwise each later sleep would be short, too.
            self.owes_read.store(self.event.read().is_err(), Ordering::Relaxed);
        }
    }

    /// Wakes the channel if a message of it waits for the backend.
    pub(crate) fn reception_ended(&self) {
        self.wake(Sleep::Reception);
    }

    fn wake(&self, least: Sleep) {
        if self.sleep.load(Ordering::SeqCst) >= least as u8
            && self.sleep.swap(AWAKE, Ordering::SeqCst) != AWAKE
        {
            // It fails only when the counter is full: the event is readable then.
            let _ = self.event.write(1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_readable(fd: RawFd) -> bool {
        let mut events = Vec::new();
        let epoll = vmm_sys_util::epoll::Epoll::new().unwrap();
        let event = vmm_sys_util::epoll::EpollEvent::new(vmm_sys_util::epoll::EventSet::IN, 0);
        epoll.ctl(vmm_sys_util::epoll::ControlOperation::Add, fd, event).unwrap();
        events.push(vmm_sys_util::epoll::EpollEvent::default());
        epoll.wait(0, &mut events).unwrap() == 1
    }

    #[test]
    fn test_closed_channel_takes_no_packet() {
        let inbox = Inbox::new().unwrap();
        assert!(inbox.pass(1, NetPacket::empty()).is_err());
        inbox.open(7);
        assert_eq!(inbox.pass(2, NetPacket::empty()).unwrap(), 7);
        // The end of an earlier opening changes nothing.
        inbox.close(6);
        assert_eq!(inbox.opening(), Some(7));
        inbox.close(7);
        assert!(inbox.pass(3, NetPacket::empty()).is_err());
        assert!(!inbox.take_arrivals(&mut Vec::new()), "a packet outlived its channel");
    }

    #[test]
    fn test_packet_wakes_a_sleeping_channel_and_no_other() {
        let inbox = Inbox::new().unwrap();
        inbox.open(1);
        inbox.pass(1, NetPacket::empty()).unwrap();
        // It came while the channel was awake.
        let event = inbox.prepare_sleep(Sleep::Packets);
        assert!(is_readable(event));
        inbox.end_sleep();
        assert!(!is_readable(event));
        assert!(inbox.take_arrivals(&mut Vec::new()));
        inbox.prepare_sleep(Sleep::Packets);
        assert!(!is_readable(event));
        inbox.pass(2, NetPacket::empty()).unwrap();
        assert!(is_readable(event));
    }

    #[test]
    fn test_wake_up_that_is_written_late_shortens_one_sleep_and_no_more() {
        let inbox = Inbox::new().unwrap();
        let event = inbox.prepare_sleep(Sleep::Packets);
        // The waking thread is stopped between its two steps, while another event ends the sleep.
        inbox.sleep.store(AWAKE, Ordering::SeqCst);
        inbox.end_sleep();
        inbox.event.write(1).unwrap();
        inbox.prepare_sleep(Sleep::Packets);
        assert!(is_readable(event));
        inbox.end_sleep();
        inbox.prepare_sleep(Sleep::Packets);
        assert!(!is_readable(event), "every later sleep is short");
    }

    #[test]
    fn test_returns_wake_only_a_channel_without_sub_allocations() {
        let inbox = Inbox::new().unwrap();
        inbox.open(1);
        let event = inbox.prepare_sleep(Sleep::Packets);
        inbox.give_back(&mut vec![1], 10);
        assert!(!is_readable(event));
        inbox.prepare_sleep(Sleep::Completions);
        assert!(is_readable(event));
        inbox.end_sleep();
        let mut returns = Vec::new();
        assert!(inbox.take_returns(&mut returns));
        inbox.prepare_sleep(Sleep::Completions);
        assert!(!is_readable(event));
        inbox.give_back(&mut vec![2, 3], 1);
        assert!(is_readable(event));
        returns.clear();
        inbox.take_returns(&mut returns);
        assert_eq!(returns, [2], "the limit holds");
    }
}
