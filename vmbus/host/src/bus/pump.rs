//! Selects the thread that works on the bus.
//!
//! The bus has no thread of its own. A thread with an event queues it, and handles the queue unless
//! another thread holds the state: that thread checks the queue again after it has released the
//! state. The work of a thread for others is bounded: after a fixed amount it hands over to a
//! helper, a thread that is started for that purpose and ends when the queue is empty. The rules:
//! | thread | first | then |
//! |---|---|---|
//! | brings work | queues it | tries to take the state; if in vain, its holder follows |
//! | holds the state | releases it | checks the queue: empties it, or hands over |
//! | hands over | queue locked: work is left, no helper | marks the helper as running, starts it |
//! | helper | queue locked: no work is left | marks the helper as ended, ends |
//!
//! So for queued work there is always a thread that will check the queue. Threads that need the
//! state themselves ([`Pump::visit`]) wait for at most the event in progress, as workers let
//! visitors in between two events.
//!
//! Model-checked: `RUSTFLAGS="--cfg loom" cargo test -p vmbus-host --lib pump::model` (use another
//! target folder).

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::{PoisonError, TryLockError};

#[cfg(loom)]
use loom::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicUsize, Ordering},
};
#[cfg(not(loom))]
use std::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicUsize, Ordering},
};

/// Maximum pieces of work that a vCPU does for others after its own message. More than VPs that
/// boot together queue, so that helpers are rare; few enough that no VP stays out of the guest for
/// long.
pub(super) const VCPU_WORK: usize = 64;

/// Maximum pieces of work that any other thread does for others: `inspect`, a hot add, a device's
/// worker. 16 of the longest (contact and offers of a full bus) take some tens of milliseconds.
pub(super) const OTHER_WORK: usize = 16;

/// Number of events that a helper handles before it checks for jobs.
const HELPER_ROUND: usize = 256;

/// The work that a pump hands to threads.
pub(super) trait Shell {
    /// The state that an event changes.
    type State;
    /// Work that is done with the state.
    type Event;
    /// Work that is done without the state: it may take longer than an event may.
    type Job;

    /// Handles one event, in a bounded number of steps, without I/O.
    fn handle(&self, state: &mut Self::State, event: Self::Event);

    /// Executes one job.
    fn run(&self, job: Self::Job);

    /// Returns true if this thread is executing a job, of this shell or another one, and so may
    /// hold locks that the next job needs.
    fn is_in_job(&self) -> bool;

    /// Starts a thread that calls [`Pump::help`]. Returns false if the system has none.
    fn start_helper(&self) -> bool;
}

/// The state, the work on it, and the threads that do it.
#[derive(Debug)]
pub(super) struct Pump<X: Shell> {
    state: Mutex<X::State>,
    queue: Mutex<Queue<X::Event, X::Job>>,
    /// Number of threads in [`Pump::visit`] that wait for the state.
    visitors: AtomicUsize,
    /// Held by a visitor until it has the state. Workers pass through it when there are visitors.
    gate: Mutex<()>,
    /// Notified when no work is left, if a thread waits for that.
    idle: Condvar,
}

#[derive(Debug)]
pub(super) struct Queue<E, J> {
    pub(super) events: VecDeque<E>,
    jobs: VecDeque<J>,
    /// A helper runs, and will check the queue once more before it ends.
    helper: bool,
    /// Jobs that are being executed.
    running: usize,
    /// Threads in [`Pump::wait_until_idle`].
    waiting: usize,
}

impl<E, J> Queue<E, J> {
    /// Returns true if the queue is empty and no helper and no job runs. The last event may still
    /// be in progress.
    fn is_idle(&self) -> bool {
        self.is_empty() && !self.helper && self.running == 0
    }

    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.jobs.is_empty()
    }
}

impl<X: Shell> Pump<X> {
    pub(super) fn new(state: X::State) -> Self {
        let queue = Queue {
            events: VecDeque::new(),
            jobs: VecDeque::new(),
            helper: false,
            running: 0,
            waiting: 0,
        };
        Self {
            state: Mutex::new(state),
            queue: Mutex::new(queue),
            visitors: AtomicUsize::new(0),
            gate: Mutex::new(()),
            idle: Condvar::new(),
        }
    }

    /// Waits for the state. It may be held for as long as one event takes. Dropping the guard, also
    /// in a panic, does or hands over the work that was queued in the meantime.
    pub(super) fn visit<'a>(&'a self, shell: &'a X) -> Visit<'a, X> {
        self.visitors.fetch_add(1, Ordering::SeqCst);
        let gate = lock(&self.gate);
        let state = lock(&self.state);
        self.visitors.fetch_sub(1, Ordering::SeqCst);
        drop(gate);
        Visit { pump: self, shell, work: OTHER_WORK, state: Some(state) }
    }

    /// Returns the state, if no other thread has it and nothing is queued; otherwise call
    /// [`Pump::settle`]. `work`: pieces of work that this thread may do for others afterwards.
    pub(super) fn enter<'a>(&'a self, shell: &'a X, work: usize) -> Option<Visit<'a, X>> {
        let state = self.try_state()?;
        // In its own statement: the queue is free again when the guard is made.
        let is_idle = lock(&self.queue).is_empty();
        is_idle.then(|| Visit { pump: self, shell, work, state: Some(state) })
    }

    /// Waits until all work queued before the call is done, and all work that follows from it. Must
    /// not be called from a job.
    pub(super) fn wait_until_idle(&self, shell: &X) {
        loop {
            // With the state, no event is being handled.
            let state = self.visit(shell);
            {
                let mut queue = lock(&self.queue);
                if queue.is_idle() {
                    return;
                }
                queue.waiting = queue.waiting.saturating_add(1);
            }
            drop(state);
            let mut queue = lock(&self.queue);
            while !queue.is_idle() {
                queue = self.idle.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            queue.waiting = queue.waiting.saturating_sub(1);
        }
    }

    /// Returns the queue. Call [`Pump::settle`] after adding to it.
    pub(super) fn queue(&self) -> MutexGuard<'_, Queue<X::Event, X::Job>> {
        lock(&self.queue)
    }

    /// Returns the number of queued jobs.
    #[cfg(all(test, not(loom)))]
    pub(super) fn jobs(&self) -> usize {
        lock(&self.queue).jobs.len()
    }

    /// Adds a job. The caller must hold the state, and so will check the queue, or call
    /// [`Pump::settle`].
    pub(super) fn add_job(&self, job: X::Job) {
        lock(&self.queue).jobs.push_back(job);
    }

    /// Handles the queue, unless another thread has the state and will. Does at most `work` pieces
    /// of work.
    pub(super) fn settle(&self, shell: &X, mut work: usize) {
        // The job that this thread is executing may hold locks that the next one needs.
        let does_jobs = !shell.is_in_job();
        loop {
            let queue = lock(&self.queue);
            if queue.is_empty() {
                return self.notify_idle(&queue);
            }
            drop(queue);
            let Some(state) = self.try_state() else { return };
            work = work.saturating_sub(self.handle_some(shell, state, work));
            if does_jobs {
                work = work.saturating_sub(self.run_some(shell, work));
            }
            let mut queue = lock(&self.queue);
            if queue.is_empty() {
                return self.notify_idle(&queue);
            }
            if work != 0 && (does_jobs || !queue.events.is_empty()) {
                continue;
            }
            if queue.helper {
                return;
            }
            queue.helper = true;
            drop(queue);
            if shell.start_helper() {
                return;
            }
            lock(&self.queue).helper = false;
            if !does_jobs {
                // After its job, this thread checks the queue again.
                return;
            }
            // No helper could be started, so this thread continues: no work may be stranded.
            work = OTHER_WORK;
        }
    }

    /// Runs a helper: handles the queue until it is empty.
    pub(super) fn help(&self, shell: &X) {
        let _guard = HelperGuard { pump: self, shell };
        loop {
            let state = self.wait_for_state();
            self.handle_some(shell, state, HELPER_ROUND);
            self.run_some(shell, HELPER_ROUND);
            let mut queue = lock(&self.queue);
            if queue.is_empty() {
                queue.helper = false;
                return self.notify_idle(&queue);
            }
        }
    }

    /// Handles up to `most` events. Returns the number of events.
    fn handle_some<'a>(
        &'a self,
        shell: &X,
        mut state: MutexGuard<'a, X::State>,
        most: usize,
    ) -> usize {
        for done in 0..most {
            // In its own statement: the queue is free while the event is handled.
            let event = lock(&self.queue).events.pop_front();
            let Some(event) = event else { return done };
            shell.handle(&mut state, event);
            if self.has_visitors() {
                drop(state);
                state = self.wait_for_state();
            }
        }
        most
    }

    /// Executes up to `most` jobs. Returns the number of jobs.
    fn run_some(&self, shell: &X, most: usize) -> usize {
        for done in 0..most {
            let Some((job, _running)) = self.next_job() else { return done };
            shell.run(job);
        }
        most
    }

    fn next_job(&self) -> Option<(X::Job, Running<'_, X>)> {
        let mut queue = lock(&self.queue);
        let job = queue.jobs.pop_front()?;
        queue.running = queue.running.saturating_add(1);
        Some((job, Running { pump: self }))
    }

    fn notify_idle(&self, queue: &Queue<X::Event, X::Job>) {
        if queue.waiting != 0 && queue.is_idle() {
            self.idle.notify_all();
        }
    }

    fn has_visitors(&self) -> bool {
        self.visitors.load(Ordering::SeqCst) != 0
    }

    /// Waits until the next visitor has the state.
    fn let_visitors_in(&self) {
        if self.has_visitors() {
            drop(lock(&self.gate));
        }
    }

    fn wait_for_state(&self) -> MutexGuard<'_, X::State> {
        self.let_visitors_in();
        lock(&self.state)
    }

    fn try_state(&self) -> Option<MutexGuard<'_, X::State>> {
        self.let_visitors_in();
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// A guard of the state. Dropping it releases the state, and handles the queue.
pub(super) struct Visit<'a, X: Shell> {
    pump: &'a Pump<X>,
    shell: &'a X,
    work: usize,
    /// `None` only while it is being dropped.
    state: Option<MutexGuard<'a, X::State>>,
}

impl<X: Shell> Deref for Visit<'_, X> {
    type Target = X::State;

    #[allow(clippy::expect_used, reason = "the state is given up in `drop` alone")]
    fn deref(&self) -> &X::State {
        self.state.as_deref().expect("the visit is not over")
    }
}

impl<X: Shell> DerefMut for Visit<'_, X> {
    #[allow(clippy::expect_used, reason = "the state is given up in `drop` alone")]
    fn deref_mut(&mut self) -> &mut X::State {
        self.state.as_deref_mut().expect("the visit is not over")
    }
}

impl<X: Shell> Drop for Visit<'_, X> {
    fn drop(&mut self) {
        self.state = None;
        // A thread that unwinds only hands over.
        let work = if std::thread::panicking() { 0 } else { self.work };
        self.pump.settle(self.shell, work);
    }
}

/// Counts a job as running until it is dropped, also by a panic.
struct Running<'a, X: Shell> {
    pump: &'a Pump<X>,
}

impl<X: Shell> Drop for Running<'_, X> {
    fn drop(&mut self) {
        let mut queue = lock(&self.pump.queue);
        queue.running = queue.running.saturating_sub(1);
        self.pump.notify_idle(&queue);
    }
}

/// Hands over to another helper when this one panics.
struct HelperGuard<'a, X: Shell> {
    pump: &'a Pump<X>,
    shell: &'a X,
}

impl<X: Shell> Drop for HelperGuard<'_, X> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            lock(&self.pump.queue).helper = false;
            self.pump.settle(self.shell, 0);
        }
    }
}

/// Locks a mutex, also after a panic of another thread: the data behind these locks is consistent
/// at any time, and a VMM must still close its disks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(all(test, loom))]
mod model;
#[cfg(all(test, not(loom)))]
mod tests;
