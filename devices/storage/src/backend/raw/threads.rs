//! A few threads per image, shared by its queues: for kernels without io_uring.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::image::Image;
use super::limits::MAX_THREADS;
use super::task::Task;
use crate::backend::{IoDone, IoRequest, Queue};

/// Their stack: they recurse nowhere.
const STACK: usize = 128 << 10;

/// The threads of one image. They are started as work comes, and end with the last queue.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    image: Arc<Image>,
    work: Mutex<Work>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Work {
    jobs: VecDeque<(IoRequest, Arc<Returns>)>,
    idle: usize,
    ending: bool,
}

/// Where the threads leave what is finished for one queue.
#[derive(Debug)]
struct Returns {
    finished: Mutex<Finished>,
    event: EventFd,
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct Finished {
    done: Vec<IoDone>,
    in_flight: usize,
}

impl Pool {
    pub(super) fn new(image: Arc<Image>) -> Self {
        let shared = Arc::new(Shared { image, work: Mutex::default(), more: Condvar::new() });
        Self { shared, threads: Mutex::default() }
    }

    /// Starts threads for `jobs` more, as far as there may be any. With one thread, work is done, only slower.
    fn grow(&self, jobs: usize) -> io::Result<()> {
        let mut threads = lock(&self.threads);
        let wanted = (threads.len() + jobs).min(MAX_THREADS);
        while threads.len() < wanted {
            let shared = Arc::clone(&self.shared);
            let thread = thread::Builder::new().name("raw-io".to_owned()).stack_size(STACK);
            match thread.spawn(move || shared.serve()) {
                Ok(thread) => threads.push(thread),
                Err(error) if threads.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.shared.work).ending = true;
        self.shared.more.notify_all();
        for thread in lock(&self.threads).drain(..) {
            // A thread that panicked has said so already.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn serve(&self) {
        let mut work = lock(&self.work);
        loop {
            if let Some((request, returns)) = work.jobs.pop_front() {
                drop(work);
                returns.add(Task::new(request).run(&self.image));
                work = lock(&self.work);
            } else if work.ending {
                return;
            } else {
                work.idle += 1;
                work = self.more.wait(work).unwrap_or_else(PoisonError::into_inner);
                work.idle -= 1;
            }
        }
    }
}

impl Returns {
    fn add(&self, done: IoDone) {
        let mut finished = lock(&self.finished);
        finished.done.push(done);
        finished.in_flight -= 1;
        if finished.done.len() == 1 {
            // One write wakes for all that follow until they are taken. Under the lock, so that the event is set only while there is any.
            let _ = self.event.write(1);
        }
        if finished.in_flight == 0 {
            self.emptied.notify_all();
        }
    }
}

/// One worker's queue.
pub(super) struct ThreadedQueue {
    pool: Arc<Pool>,
    returns: Arc<Returns>,
}

impl ThreadedQueue {
    /// # Errors
    /// The system's: out of descriptors or threads.
    pub(super) fn new(pool: Arc<Pool>) -> io::Result<Self> {
        pool.grow(1)?;
        let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        let returns = Returns { finished: Mutex::default(), event, emptied: Condvar::new() };
        Ok(Self { pool, returns: Arc::new(returns) })
    }
}

impl Queue for ThreadedQueue {
    fn submit(&mut self, requests: &mut Vec<IoRequest>) {
        if requests.is_empty() {
            return;
        }
        let count = requests.len();
        lock(&self.returns.finished).in_flight += count;
        let mut work = lock(&self.pool.shared.work);
        work.jobs.extend(requests.drain(..).map(|request| (request, Arc::clone(&self.returns))));
        let (waiting, idle) = (work.jobs.len(), work.idle);
        drop(work);
        if waiting > idle {
            // There is one already.
            let _ = self.pool.grow(waiting - idle);
        }
        match count {
            1 => self.pool.shared.more.notify_one(),
            _ => self.pool.shared.more.notify_all(),
        }
    }

    fn poll(&mut self, done: &mut Vec<IoDone>) {
        let mut finished = lock(&self.returns.finished);
        if !finished.done.is_empty() {
            done.append(&mut finished.done);
            let _ = self.returns.event.read();
        }
    }

    fn event(&self) -> Option<RawFd> {
        Some(self.returns.event.as_raw_fd())
    }
}

impl Drop for ThreadedQueue {
    /// What no thread has begun is forgotten, the rest waited for.
    fn drop(&mut self) {
        let mut work = lock(&self.pool.shared.work);
        let before = work.jobs.len();
        work.jobs.retain(|(_, returns)| !Arc::ptr_eq(returns, &self.returns));
        let forgotten = before - work.jobs.len();
        drop(work);
        let mut finished = lock(&self.returns.finished);
        finished.in_flight -= forgotten;
        while finished.in_flight != 0 {
            finished = self.returns.emptied.wait(finished).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
