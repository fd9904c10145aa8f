//! A few threads per image, shared by its queues: for kernels without io_uring, and for calls that
//! a ring does not have or would make wait behind those of other files.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::image::Image;
use super::limits::{MAX_CLEARING, MAX_THREADS};
use super::task::Task;
use crate::{Completion, Operation, Queue, Request};

/// Bytes of a thread's stack. The threads have no recursion.
const STACK: usize = 128 << 10;

/// The threads of one image. They start when there is work, and end with the last queue.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    image: Arc<Image>,
    work: Mutex<Work>,
    /// Threads that execute a request.
    busy: AtomicUsize,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Work {
    jobs: VecDeque<(Task, Arc<Returns>)>,
    idle: usize,
    /// Threads that execute a discard or zeroing.
    clearing: usize,
    ending: bool,
}

/// The finished requests of one queue. The threads add them, and the queue takes them.
#[derive(Debug)]
struct Returns {
    finished: Mutex<Finished>,
    event: EventFd,
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct Finished {
    done: Vec<Completion>,
    /// Unfinished requests that use memory.
    touching: usize,
}

/// The threads of the open queues of one image, if any of these queues uses threads.
#[derive(Debug, Default)]
pub(super) struct SharedPool(Mutex<Weak<Pool>>);

impl SharedPool {
    /// Returns the threads of `image`, shared with its other queues.
    pub(super) fn get(&self, image: &Arc<Image>) -> Arc<Pool> {
        let mut pool = lock(&self.0);
        pool.upgrade().unwrap_or_else(|| {
            let new = Arc::new(Pool::new(Arc::clone(image)));
            *pool = Arc::downgrade(&new);
            new
        })
    }
}

impl Pool {
    fn new(image: Arc<Image>) -> Self {
        let shared = Arc::new(Shared {
            image,
            work: Mutex::default(),
            busy: AtomicUsize::new(0),
            more: Condvar::new(),
        });
        Self { shared, threads: Mutex::default() }
    }

    /// Starts up to `jobs` threads, up to the maximum. Fewer threads are enough to do all work,
    /// only more slowly.
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
    /// Waits for the threads, unless one is still in a call without data (a long discard). Then
    /// they end by themselves, and the image stays locked until then.
    fn drop(&mut self) {
        lock(&self.shared.work).ending = true;
        self.shared.more.notify_all();
        if self.shared.busy.load(Ordering::Acquire) != 0 {
            return;
        }
        for thread in lock(&self.threads).drain(..) {
            // A panic of the thread has already been printed.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn serve(&self) {
        let mut work = lock(&self.work);
        loop {
            if let Some((task, returns)) = work.next() {
                let (touches, clears) = (touches(task.request()), clears(task.request()));
                self.busy.fetch_add(1, Ordering::AcqRel);
                work.clearing += usize::from(clears);
                drop(work);
                let done = task.run(&self.image);
                // The count comes first: a queue with its last request back may be the last queue
                // of the image.
                self.busy.fetch_sub(1, Ordering::AcqRel);
                returns.add(done, touches);
                work = lock(&self.work);
                work.clearing -= usize::from(clears);
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

impl Work {
    /// Returns the next task. Discards leave some threads to other requests.
    fn next(&mut self) -> Option<(Task, Arc<Returns>)> {
        if self.clearing < MAX_CLEARING {
            return self.jobs.pop_front();
        }
        let other = self.jobs.iter().position(|(task, _)| !clears(task.request()))?;
        self.jobs.remove(other)
    }
}

/// Returns whether the calls of `request` read or write its memory.
fn touches(request: &Request) -> bool {
    !request.buffer.is_empty()
}

fn clears(request: &Request) -> bool {
    matches!(request.operation, Operation::Discard | Operation::WriteZeroes { .. })
}

impl Returns {
    fn add(&self, done: Completion, touches: bool) {
        let mut finished = lock(&self.finished);
        finished.done.push(done);
        finished.touching -= usize::from(touches);
        if finished.done.len() == 1 {
            // One write announces all requests until they are taken. It holds the lock, so that the
            // event is set only while there are any.
            let _ = self.event.write(1);
        }
        if finished.touching == 0 {
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
    /// The system's error: out of descriptors or threads.
    pub(super) fn new(pool: Arc<Pool>) -> io::Result<Self> {
        pool.grow(1)?;
        let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        let returns = Returns { finished: Mutex::default(), event, emptied: Condvar::new() };
        Ok(Self { pool, returns: Arc::new(returns) })
    }

    /// Makes the event readable.
    pub(super) fn wake(&self) {
        let _ = self.returns.event.write(1);
    }

    /// Gives tasks to the threads, which make all calls that remain of each.
    pub(super) fn give(&self, tasks: impl ExactSizeIterator<Item = Task>) {
        let count = tasks.len();
        if count == 0 {
            return;
        }
        let mut touching = 0;
        let mut work = lock(&self.pool.shared.work);
        work.jobs.extend(tasks.map(|task| {
            touching += usize::from(touches(task.request()));
            (task, Arc::clone(&self.returns))
        }));
        // No thread can take a task before `work` is unlocked.
        lock(&self.returns.finished).touching += touching;
        let (waiting, idle) = (work.jobs.len(), work.idle);
        drop(work);
        if waiting > idle {
            // At least one thread exists, which is enough.
            let _ = self.pool.grow(waiting - idle);
        }
        match count {
            1 => self.pool.shared.more.notify_one(),
            _ => self.pool.shared.more.notify_all(),
        }
    }
}

impl Queue for ThreadedQueue {
    fn submit(&mut self, requests: &mut Vec<Box<Request>>) {
        self.give(requests.drain(..).map(Task::new));
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
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
    /// Drops the requests that no thread has begun, and waits for requests in progress that use
    /// memory.
    fn drop(&mut self) {
        let mut forgotten = 0;
        lock(&self.pool.shared.work).jobs.retain(|(task, returns)| {
            let keep = !Arc::ptr_eq(returns, &self.returns);
            forgotten += usize::from(!keep && touches(task.request()));
            keep
        });
        let mut finished = lock(&self.returns.finished);
        finished.touching -= forgotten;
        while finished.touching != 0 {
            finished = self.returns.emptied.wait(finished).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
