//! The metadata thread of an image: lookups that may block, off the storage workers.
//!
//! It executes one bounded step of a job after the other. It serves the queues in rotation, and
//! also the jobs of one queue. So an UNMAP of terabytes or a long copy-up delays another request by
//! some steps, not by its whole work. Jobs that need a barrier share one.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use synthvm_block::IoError;

use super::Map;
use super::job::{Job, Outcome, barrier};
use super::mailbox::Mailbox;

/// Bytes of the thread's stack: it recurses only along a chain of parents (at most 32).
const STACK: usize = 512 << 10;

/// Most steps of other jobs before a barrier. Jobs that need a barrier wait this long, so that more
/// jobs share it.
const MAX_STEPS_BEFORE_BARRIER: usize = 64;

/// The thread, started by the first job. Dropping it ends the thread and waits for it.
#[derive(Debug)]
pub(super) struct MetadataThread {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    map: Arc<dyn Map>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The queues that have jobs, in the order in which they are served.
    lines: VecDeque<Line>,
    ending: bool,
}

/// The jobs of one queue, in the order in which they are served. Never empty.
#[derive(Debug)]
struct Line {
    mailbox: Arc<Mailbox>,
    jobs: VecDeque<Job>,
}

impl MetadataThread {
    /// Returns the thread for `map`. It starts with the first job.
    pub(super) fn new(map: Arc<dyn Map>) -> Self {
        let shared = Shared { map, state: Mutex::default(), changed: Condvar::new() };
        Self { shared: Arc::new(shared), thread: Mutex::default() }
    }

    /// Gives `job` to the thread. The answer goes to `mailbox`.
    ///
    /// # Errors
    /// The job, if the thread cannot be started.
    pub(super) fn send(&self, mailbox: &Arc<Mailbox>, job: Job) -> Result<(), Job> {
        if !self.start() {
            return Err(job);
        }
        self.shared.lock().add(mailbox, job);
        self.shared.changed.notify_one();
        Ok(())
    }

    /// Withdraws the jobs of a queue. Returns immediately: a step in progress ends by itself, and
    /// does not access the memory of a request.
    pub(super) fn forget(&self, mailbox: &Arc<Mailbox>) {
        mailbox.close();
        self.shared.lock().lines.retain(|line| !Arc::ptr_eq(&line.mailbox, mailbox));
    }

    /// Starts the thread if it does not run. Returns whether it runs.
    fn start(&self) -> bool {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() {
            let shared = Arc::clone(&self.shared);
            let builder =
                thread::Builder::new().name("image-metadata".to_owned()).stack_size(STACK);
            *thread = builder.spawn(move || shared.serve()).ok();
        }
        thread.is_some()
    }
}

impl Drop for MetadataThread {
    fn drop(&mut self) {
        self.shared.lock().ending = true;
        self.shared.changed.notify_one();
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner);
        // A thread that panicked has already printed it.
        let _ = thread.take().map(JoinHandle::join);
    }
}

impl State {
    fn add(&mut self, mailbox: &Arc<Mailbox>, job: Job) {
        match self.lines.iter_mut().find(|line| Arc::ptr_eq(&line.mailbox, mailbox)) {
            Some(line) => line.jobs.push_back(job),
            None => self.lines.push_back(Line { mailbox: Arc::clone(mailbox), jobs: [job].into() }),
        }
    }

    /// Returns the next job. Its queue moves to the end of the rotation.
    fn next(&mut self) -> Option<(Arc<Mailbox>, Job)> {
        let mut line = self.lines.pop_front()?;
        let job = line.jobs.pop_front()?;
        let mailbox = Arc::clone(&line.mailbox);
        if !line.jobs.is_empty() {
            self.lines.push_back(line);
        }
        Some((mailbox, job))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        let mut waiting = Vec::new();
        let mut steps = 0;
        let mut state = self.lock();
        loop {
            if !waiting.is_empty() && (state.lines.is_empty() || steps >= MAX_STEPS_BEFORE_BARRIER)
            {
                drop(state);
                let result = barrier(&*self.map);
                state = self.lock();
                self.pass(&mut state, &mut waiting, result);
                steps = 0;
            } else if let Some((mailbox, mut job)) = state.next() {
                drop(state);
                let outcome = job.step(&*self.map);
                state = self.lock();
                steps += usize::from(!waiting.is_empty());
                match outcome {
                    _ if mailbox.is_closed() => {}
                    Outcome::Finished(result) => mailbox.put(job.answer(result)),
                    Outcome::Again => state.add(&mailbox, job),
                    Outcome::Barrier => waiting.push((mailbox, job)),
                }
            } else if state.ending {
                return;
            } else {
                drop(state);
                self.map.idle();
                state = self.lock();
                while state.lines.is_empty() && !state.ending {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Continues the jobs that waited for a barrier, or fails them with its error.
    fn pass(
        &self,
        state: &mut State,
        waiting: &mut Vec<(Arc<Mailbox>, Job)>,
        result: Result<(), IoError>,
    ) {
        for (mailbox, job) in waiting.drain(..) {
            match result {
                _ if mailbox.is_closed() => {}
                Ok(()) => state.add(&mailbox, job),
                Err(error) => mailbox.put(job.answer(Err(error))),
            }
        }
    }
}
