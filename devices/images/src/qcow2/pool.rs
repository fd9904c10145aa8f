//! The threads that wait for the image.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::{io, thread};

/// More add little: imago lets writers of metadata wait for each other.
const THREADS: usize = 4;

/// What a thread is to do.
pub(super) type Job = Box<dyn FnOnce() + Send>;

/// The threads; dropping it ends them when all is done.
#[derive(Debug)]
pub(super) struct Pool {
    sender: Sender,
    threads: Vec<JoinHandle<()>>,
}

/// By which jobs get there.
#[derive(Clone, Debug, Default)]
pub(super) struct Sender(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    closing: bool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} jobs", self.lock().jobs.len())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job();
                state = self.lock();
            } else if state.closing {
                return;
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

impl Pool {
    /// Starts them.
    pub(super) fn start() -> io::Result<Self> {
        let mut pool = Self { sender: Sender::default(), threads: Vec::new() };
        for _ in 0..THREADS {
            let shared = Arc::clone(&pool.sender.0);
            let thread = thread::Builder::new().name("qcow2".to_owned()).spawn(move || shared.work())?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    pub(super) fn sender(&self) -> Sender {
        self.sender.clone()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.sender.0.lock().closing = true;
        self.sender.0.changed.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Sender {
    pub(super) fn send(&self, job: Job) {
        self.0.lock().jobs.push_back(job);
        self.0.changed.notify_one();
    }
}
