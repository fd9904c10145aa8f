//! The workers of a device's channels: the test itself, step by step, or a thread for each channel.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use vmbus_host::Channel;
use vmm_sys_util::eventfd::EventFd;

use crate::config::Mode;
use crate::synic::lock;

/// The next step of a worker after a call of its handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// The handler is called again when the doorbell is signalled.
    Wait,
    /// The channel is returned to the bus.
    Stop,
}

/// A function that processes a channel's rings. It is called after each signal of the doorbell, and
/// once immediately after the open.
///
/// When [`Channel::is_closing`], it must return [`Flow::Stop`] as soon as it has no request in
/// flight, because the guest waits for that.
pub type Handler = Box<dyn FnMut(&mut Channel) -> Flow + Send>;

/// Runs handlers: on the caller's thread when the VM is stepped, otherwise in a thread for each
/// channel. Clones share the workers.
#[derive(Clone)]
pub struct Workers {
    shared: Arc<Shared>,
}

struct Shared {
    mode: Mode,
    tasks: Mutex<Vec<Task>>,
    hooks: Mutex<Vec<Hook>>,
    threads: Mutex<Vec<(EventFd, JoinHandle<()>)>>,
    stop: AtomicBool,
    gate: Mutex<Gate>,
    gate_moved: Condvar,
}

/// The gate of the handlers, which run only while it is open.
#[derive(Default)]
struct Gate {
    closed: bool,
    running: usize,
}

struct Task {
    channel: Channel,
    handler: Handler,
}

/// A function that runs at each step of the machine. It returns true when it did any work.
type Hook = Box<dyn FnMut() -> bool + Send>;

impl Workers {
    pub(crate) fn new(mode: Mode) -> Self {
        let shared = Shared {
            mode,
            tasks: Mutex::default(),
            hooks: Mutex::default(),
            threads: Mutex::default(),
            stop: AtomicBool::new(false),
            gate: Mutex::default(),
            gate_moved: Condvar::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Serves `channel` with `handler` until the handler returns [`Flow::Stop`]. Returns
    /// immediately.
    ///
    /// # Panics
    /// A threaded VM cannot start the thread.
    pub fn run(&self, channel: Channel, handler: Handler) {
        match self.shared.mode {
            Mode::Stepped => lock(&self.shared.tasks).push(Task { channel, handler }),
            Mode::Threaded => self.spawn(channel, handler),
        }
    }

    /// Makes each step of a stepped VM call `hook`, for devices with workers of another form. The
    /// hook returns true when it did any work.
    pub fn on_step(&self, hook: impl FnMut() -> bool + Send + 'static) {
        lock(&self.shared.hooks).push(Box::new(hook));
    }

    /// Runs each handler with a signalled doorbell once. Returns true when there was one.
    pub(crate) fn step(&self) -> bool {
        if lock(&self.shared.gate).closed {
            return false;
        }
        // The handlers run without the lock, because they may open and close channels.
        let mut tasks = std::mem::take(&mut *lock(&self.shared.tasks));
        let mut any = false;
        let mut kept = Vec::with_capacity(tasks.len());
        for mut task in tasks.drain(..) {
            let mut flow = Flow::Wait;
            if task.channel.doorbell().read().is_ok() {
                any = true;
                flow = (task.handler)(&mut task.channel);
            }
            if flow == Flow::Wait {
                kept.push(task);
            }
        }
        let mut now = lock(&self.shared.tasks);
        kept.append(&mut now);
        *now = kept;
        drop(now);
        let mut hooks = std::mem::take(&mut *lock(&self.shared.hooks));
        for hook in &mut hooks {
            any |= hook();
        }
        lock(&self.shared.hooks).splice(0..0, hooks);
        any
    }

    fn spawn(&self, channel: Channel, handler: Handler) {
        let waker = channel.doorbell().try_clone().expect("a descriptor for the worker's doorbell");
        let name = format!("loopback-ch{}", channel.relid());
        let shared = Arc::downgrade(&self.shared);
        let serve = move || {
            let mut task = Task { channel, handler };
            loop {
                wait_readable(task.channel.doorbell());
                // There is no other reader; a spurious wake-up only causes one useless call.
                let _ = task.channel.doorbell().read();
                let Some(shared) = shared.upgrade() else { return };
                let flow = shared.pass_gate(|| (task.handler)(&mut task.channel));
                if flow != Some(Flow::Wait) {
                    return;
                }
            }
        };
        let thread =
            thread::Builder::new().name(name).spawn(serve).expect("a thread for the worker");
        let mut threads = lock(&self.shared.threads);
        threads.retain(|(_, thread)| !thread.is_finished());
        threads.push((waker, thread));
    }

    /// Waits until no handler runs. None begins before [`Workers::resume`].
    pub(crate) fn pause(&self) {
        let mut gate = lock(&self.shared.gate);
        gate.closed = true;
        let idle = self.shared.gate_moved.wait_while(gate, |gate| gate.running != 0);
        drop(idle.unwrap_or_else(PoisonError::into_inner));
    }

    /// Ends [`Workers::pause`].
    pub(crate) fn resume(&self) {
        lock(&self.shared.gate).closed = false;
        self.shared.gate_moved.notify_all();
    }

    /// Ends all workers, also those with open channels, and permits new ones.
    pub(crate) fn clear(&self) {
        self.shut_down();
        self.shared.stop.store(false, Ordering::Release);
    }

    /// Ends all workers, also those with open channels.
    pub(crate) fn shut_down(&self) {
        self.shared.stop.store(true, Ordering::Release);
        // The lock makes threads at the gate see the flag, too: a thread that read it earlier is
        // asleep when this thread gets the lock.
        drop(lock(&self.shared.gate));
        self.shared.gate_moved.notify_all();
        drop(std::mem::take(&mut *lock(&self.shared.tasks)));
        drop(std::mem::take(&mut *lock(&self.shared.hooks)));
        for (waker, thread) in std::mem::take(&mut *lock(&self.shared.threads)) {
            let _ = waker.write(1);
            // The thread has already printed a panic of its handler.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Runs a handler once the gate is open. `None`: the workers end instead.
    fn pass_gate(&self, run: impl FnOnce() -> Flow) -> Option<Flow> {
        let stopped = || self.stop.load(Ordering::Acquire);
        let gate = lock(&self.gate);
        let mut gate = self
            .gate_moved
            .wait_while(gate, |gate| gate.closed && !stopped())
            .unwrap_or_else(PoisonError::into_inner);
        if stopped() {
            return None;
        }
        gate.running += 1;
        drop(gate);
        let _inside = Inside(self);
        Some(run())
    }
}

/// Counts a handler as running, even if it panics.
struct Inside<'a>(&'a Shared);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        lock(&self.0.gate).running -= 1;
        self.0.gate_moved.notify_all();
    }
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers").field("mode", &self.shared.mode).finish_non_exhaustive()
    }
}

fn wait_readable(event: &EventFd) {
    let mut poll = libc::pollfd { fd: event.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid pollfd. An error (a signal) only causes one useless call.
    let _ = unsafe { libc::poll(&raw mut poll, 1, -1) };
}
