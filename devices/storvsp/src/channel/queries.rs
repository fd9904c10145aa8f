//! GET LBA STATUS: queries to a backend that may block, made on the disk's [`Helper`] thread.
//!
//! Each query has an entry in the in-flight table like a request, so that resets, a pause and a
//! close wait for it. The guest's memory stays with the worker: if the channel closes first, a late
//! answer touches no guest memory.
//!
//! [`Helper`]: crate::helper::Helper

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::limits::MAX_QUERIES;
use crate::lun::Lun;
use synthvm_block::{IoError, Operation, Request};
use synthvm_scsi::{CheckCondition, LbaQuery, condition};

/// The answer to a query: data for the guest, or sense.
type Answer = Result<Vec<u8>, CheckCondition>;

/// The queries of one channel.
#[derive(Debug, Default)]
pub(super) struct Queries {
    waiting: Vec<Waiting>,
    /// Created with the first query.
    answers: Option<Arc<Answers>>,
}

#[derive(Debug)]
struct Waiting {
    lun: Arc<Lun>,
    request: Box<Request>,
}

/// An answered query.
pub(super) struct Finished {
    /// The queried disk.
    pub(super) lun: Arc<Lun>,
    /// The request with the guest's memory and the query's tag.
    pub(super) request: Box<Request>,
    /// The answer of the backend.
    pub(super) answer: Answer,
}

/// The queue of answers from helper threads, with the event that wakes the worker.
#[derive(Debug)]
struct Answers {
    done: Mutex<Vec<(u64, Answer)>>,
    event: EventFd,
}

impl Queries {
    /// Returns true if another query can begin.
    pub(super) fn has_space(&self) -> bool {
        self.waiting.len() < MAX_QUERIES
    }

    /// Returns true if no query is pending.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Returns the event that is readable from an answer until [`Queries::clear_event`]. `None` if
    /// no query is pending.
    pub(super) fn event(&self) -> Option<&EventFd> {
        self.answers.as_ref().filter(|_| !self.is_empty()).map(|answers| &answers.event)
    }

    /// Clears the event. To be called before the answers are taken, so that no answer is missed.
    pub(super) fn clear_event(&self) {
        if let Some(answers) = &self.answers {
            let _ = answers.event.read();
        }
    }

    /// Starts a query with `tag` to `lun`, on its helper thread or, with `inline`, on this one.
    ///
    /// # Errors
    /// Returns the request if no event or thread can be created.
    pub(super) fn ask(
        &mut self,
        tag: u64,
        lun: Arc<Lun>,
        query: LbaQuery,
        mut request: Box<Request>,
        inline: bool,
    ) -> Result<(), Box<Request>> {
        let Ok(answers) = self.answers() else { return Err(request) };
        let question = Question::new(tag, Arc::clone(&lun), answers);
        if inline {
            question.ask(query);
        } else if lun.helper.run(move || question.ask(query)).is_err() {
            return Err(request);
        }
        request.tag = tag;
        self.waiting.push(Waiting { lun, request });
        Ok(())
    }

    /// Takes the next answered query, in order of the answers.
    pub(super) fn take_finished(&mut self) -> Option<Finished> {
        let answers = self.answers.as_ref()?;
        loop {
            let (tag, answer) = {
                let mut done = answers.done();
                if done.is_empty() {
                    return None;
                }
                done.remove(0)
            };
            let Some(at) = self.waiting.iter().position(|waiting| waiting.request.tag == tag)
            else {
                continue;
            };
            let Waiting { lun, request } = self.waiting.swap_remove(at);
            return Some(Finished { lun, request, answer });
        }
    }

    fn answers(&mut self) -> io::Result<Arc<Answers>> {
        if let Some(answers) = &self.answers {
            return Ok(Arc::clone(answers));
        }
        let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        let answers = Arc::new(Answers { done: Mutex::default(), event });
        Ok(Arc::clone(self.answers.insert(answers)))
    }
}

impl Answers {
    fn done(&self) -> MutexGuard<'_, Vec<(u64, Answer)>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A query in progress. Dropping it without an answer cancels it.
struct Question {
    tag: u64,
    lun: Arc<Lun>,
    answers: Arc<Answers>,
    is_pending: bool,
}

impl Question {
    fn new(tag: u64, lun: Arc<Lun>, answers: Arc<Answers>) -> Self {
        lun.lookups.fetch_add(1, Ordering::Relaxed);
        Self { tag, lun, answers, is_pending: true }
    }

    fn ask(mut self, query: LbaQuery) {
        let mut data = Vec::new();
        let asked = catch_unwind(AssertUnwindSafe(|| self.lun.lba_status(query, &mut data)));
        // The panic hook has logged the backend's panic.
        let answer = asked.unwrap_or_else(|_| {
            let (operation, error) = (Operation::Read, IoError::Os(libc::EIO));
            self.lun.failed(operation, query.range.offset, error);
            Err(condition(error, operation))
        });
        // Counted before the answer: reports must not show a query that the guest knows has ended.
        self.end();
        self.answers.done().push((self.tag, answer.map(|()| data)));
        // A write fails only if the counter is full, and then the event is readable already.
        let _ = self.answers.event.write(1);
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.is_pending) {
            self.lun.lookups.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.end();
    }
}
