//! The answers of the metadata thread to a queue.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use synthvm_block::IoError;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::Extents;

/// The result of a [`super::job::Job`].
#[derive(Debug)]
pub(super) struct Answer {
    /// The ticket that [`super::job::Job::new`] got.
    pub(super) ticket: u64,
    /// Bytes from the beginning of the range that the extents cover, or that need no I/O.
    pub(super) result: Result<u64, IoError>,
    pub(super) extents: Extents,
}

/// Answers for one queue. Its event is readable while there are any.
#[derive(Debug)]
pub(super) struct Mailbox {
    answers: Mutex<Vec<Answer>>,
    /// Whether there are answers, so that a poll without answers takes no lock. It changes only
    /// under the lock.
    has_answers: AtomicBool,
    event: EventFd,
    /// Whether the queue is dropped. Answers are then not read any more.
    closed: AtomicBool,
}

impl Mailbox {
    /// Returns an empty mailbox.
    ///
    /// # Errors
    /// The system's error: out of file descriptors.
    pub(super) fn new() -> io::Result<Self> {
        let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        Ok(Self {
            answers: Mutex::default(),
            has_answers: AtomicBool::new(false),
            event,
            closed: AtomicBool::new(false),
        })
    }

    /// Adds an answer and wakes the queue's worker.
    pub(super) fn put(&self, answer: Answer) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.push(answer);
        if answers.len() == 1 {
            self.has_answers.store(true, Ordering::Release);
            // The write holds the lock, so that the event is set only while there are answers. The
            // write fails only when the counter is full, and then the event is readable.
            let _ = self.event.write(1);
        }
    }

    /// Moves all answers to `into`.
    pub(super) fn take(&self, into: &mut Vec<Answer>) {
        // An answer that arrives later sets the event.
        if !self.has_answers.load(Ordering::Acquire) {
            return;
        }
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if !answers.is_empty() {
            self.has_answers.store(false, Ordering::Release);
            let _ = self.event.read();
            into.append(&mut answers);
        }
    }

    /// Returns the descriptor to wait for.
    pub(super) fn event(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    /// Marks the queue as dropped.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Returns whether the queue is dropped.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}
