//! A thread that serves many channels.

use std::fmt;
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::handler::ChannelHandler;
use crate::limits::THREAD_STACK;
use crate::wait;
use crate::wake;
use crate::worker::{Turn, Worker};

/// A thread that serves the channels of any number of devices. For devices with little traffic: a
/// VM has a dozen of those, and most of them send a packet every few seconds.
///
/// Each channel with work gets a turn of at most 256 packets, then the next one, which bounds the
/// delay for the others. There is no busy-poll and no interrupt moderation. A handler that blocks,
/// in a call or in its `drop`, blocks all channels of the loop.
///
/// Clones are handles to the same thread. It ends when its channels are closed and its handles are
/// dropped.
#[derive(Clone)]
pub struct SharedLoop {
    handle: Arc<Handle>,
}

impl SharedLoop {
    /// Starts the thread `name`. Linux shows the first 15 bytes of the name.
    ///
    /// # Errors
    /// The system is out of file descriptors, memory or threads.
    pub fn new(name: &str) -> io::Result<Self> {
        let wake = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        let inbox = Arc::new(Inbox { added: Mutex::default(), wake });
        let handle = Arc::new(Handle { inbox: Arc::clone(&inbox) });
        let name = name.chars().filter(|c| *c != '\0').collect();
        thread::Builder::new().name(name).stack_size(THREAD_STACK).spawn(move || {
            wake::sleep_exactly();
            run(&inbox);
        })?;
        Ok(Self { handle })
    }

    pub(crate) fn add<H: ChannelHandler>(&self, worker: Worker<H>) {
        let inbox = &self.handle.inbox;
        inbox.lock().workers.push(Box::new(worker));
        inbox.wake();
    }
}

impl fmt::Debug for SharedLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedLoop").finish_non_exhaustive()
    }
}

/// Tells the thread when the last handle is dropped.
struct Handle {
    inbox: Arc<Inbox>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.inbox.lock().has_no_handle = true;
        self.inbox.wake();
    }
}

/// The queue of new channels to the thread.
struct Inbox {
    added: Mutex<Added>,
    /// Wakes the thread.
    wake: EventFd,
}

#[derive(Default)]
struct Added {
    workers: Vec<Box<dyn LoopWorker>>,
    /// The last handle was dropped: no channel can be added any more.
    has_no_handle: bool,
}

impl Inbox {
    fn wake(&self) {
        // A write fails only if the counter is full, and then the event is readable already.
        let _ = self.wake.write(1);
    }

    fn lock(&self) -> MutexGuard<'_, Added> {
        self.added.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker of any device.
trait LoopWorker: Send {
    /// Works for a bounded time. A panic of the handler ends the worker, as a fault does.
    fn turn(&mut self) -> Turn;

    /// Adds the descriptors that wake the worker.
    fn add_polls(&mut self, polls: &mut Vec<libc::pollfd>);

    /// Clears the doorbell and the kick if `polls` has them set.
    fn clear_polls(&self, polls: &[libc::pollfd]);

    /// Returns the time until the worker has work without a descriptor.
    fn timeout(&self) -> Option<Duration>;
}

impl<H: ChannelHandler> LoopWorker for Worker<H> {
    fn turn(&mut self) -> Turn {
        let end = match catch_unwind(AssertUnwindSafe(|| Worker::turn(self))) {
            Ok(Ok(Turn::Ended)) => Ok(Ok(())),
            Ok(Ok(turn)) => return turn,
            Ok(Err(fault)) => Ok(Err(fault)),
            Err(panic) => Err(panic),
        };
        self.report_end(end);
        Turn::Ended
    }

    fn add_polls(&mut self, polls: &mut Vec<libc::pollfd>) {
        Worker::add_polls(self, polls);
    }

    fn clear_polls(&self, polls: &[libc::pollfd]) {
        Worker::clear(self, polls);
    }

    fn timeout(&self) -> Option<Duration> {
        Worker::timeout(self)
    }
}

/// A channel of the loop.
struct Member {
    worker: Box<dyn LoopWorker>,
    /// The worker has work left from its last turn.
    has_more: bool,
    /// The worker's entries of the poll list.
    polls: Range<usize>,
}

fn run(inbox: &Inbox) {
    let mut members: Vec<Member> = Vec::new();
    let mut polls = Vec::new();
    loop {
        {
            let mut added = inbox.lock();
            let new = added.workers.drain(..);
            members.extend(new.map(|worker| Member { worker, has_more: true, polls: 0..0 }));
            if added.has_no_handle && members.is_empty() {
                return;
            }
        }
        sleep(inbox, &mut members, &mut polls);
        // Backwards, so that a removal moves only members that had their turn.
        for index in (0..members.len()).rev() {
            let member = &mut members[index];
            let polls = polls.get(member.polls.clone()).unwrap_or_default();
            let is_woken = polls.iter().any(|entry| entry.revents != 0);
            // Workers with a timeout get a turn at each wake-up: that is cheap, and never too late.
            if !is_woken && !member.has_more && member.worker.timeout().is_none() {
                continue;
            }
            member.worker.clear_polls(polls);
            match member.worker.turn() {
                Turn::Idle => member.has_more = false,
                Turn::More => member.has_more = true,
                Turn::Ended => drop_contained(members.swap_remove(index)),
            }
        }
    }
}

/// Drops a worker, and contains a panic of its handler: the thread serves others.
fn drop_contained(worker: Member) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(worker)));
}

/// Sleeps until a channel may have work or one is added.
fn sleep(inbox: &Inbox, members: &mut [Member], polls: &mut Vec<libc::pollfd>) {
    use std::os::fd::AsRawFd;

    polls.clear();
    polls.push(wait::entry(inbox.wake.as_raw_fd()));
    let mut timeout: Option<Duration> = None;
    for member in members {
        let start = polls.len();
        member.worker.add_polls(polls);
        member.polls = start..polls.len();
        let own = if member.has_more { Some(Duration::ZERO) } else { member.worker.timeout() };
        timeout = match (timeout, own) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
    wait::poll(polls, timeout);
    if polls[0].revents != 0 {
        let _ = inbox.wake.read();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_thread_of_a_loop_without_channels_ends_with_its_last_handle() {
        let one = SharedLoop::new("loop").unwrap();
        let inbox = Arc::downgrade(&one.handle.inbox);
        let other = one.clone();
        drop(one);
        assert!(inbox.upgrade().is_some());
        drop(other);
        while inbox.upgrade().is_some() {
            thread::yield_now();
        }
    }
}
