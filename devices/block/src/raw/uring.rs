//! Asynchronous I/O through io_uring: a batch by one system call, directly between the guest's
//! pages and the file.
//!
//! The ring's own descriptor is the queue's event. It is readable while there are completions, and
//! taking them clears it, so that no wake-up needs a write or a read.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use io_uring::{IoUring, Probe, opcode, types};
use tracing::{error, warn};

use super::call::Call;
use super::direct::reopen;
use super::entry::{Entry, entry};
use super::fixed::FixedMemory;
use super::image::Image;
use super::limits::{KERNEL_THREADS, RING_DEPTH};
use super::task::{Next, Task};
use super::threads::{SharedPool, ThreadedQueue};
use crate::{Completion, Operation, Queue, Request};

/// The `user_data` of the flush, which serves several tasks.
const SYNC: u64 = u64::MAX;

/// The `user_data` of the poll for the event of the image's threads.
const HELPED: u64 = u64::MAX - 1;

/// Checks that the kernel has and allows all features that [`UringQueue`] needs.
///
/// # Errors
/// The reason: ENOSYS if there is no io_uring, EPERM if it is forbidden.
pub(super) fn probe() -> io::Result<()> {
    let ring = IoUring::new(2)?;
    let mut known = Probe::new();
    ring.submitter().register_probe(&mut known)?;
    let needed = [
        opcode::Readv::CODE,
        opcode::Writev::CODE,
        opcode::Read::CODE,
        opcode::Write::CODE,
        opcode::Fsync::CODE,
        opcode::Fallocate::CODE,
        opcode::PollAdd::CODE,
    ];
    // Without these features completions could be lost, or iovecs would have to outlive their
    // submission.
    let sound = ring.params().is_feature_nodrop() && ring.params().is_feature_submit_stable();
    if sound && needed.iter().all(|&code| known.is_supported(code)) {
        return Ok(());
    }
    Err(io::ErrorKind::Unsupported.into())
}

/// One worker's queue.
pub(super) struct UringQueue {
    ring: IoUring,
    image: Arc<Image>,
    pool: Arc<SharedPool>,
    /// The flushed descriptor, for flushes alone. The kernel reports lost data once to each open
    /// file, and the flush of another queue must not take that report.
    _flushed: File,
    /// The memory that is registered with the ring.
    fixed: Option<Arc<FixedMemory>>,
    /// Calls with registered memory that the image has not counted yet.
    fixed_calls: u64,
    tasks: Vec<Option<Task>>,
    free: Vec<u32>,
    /// Tasks with a next call to make.
    ready: VecDeque<u32>,
    /// Requests that wait for a task to end.
    waiting: VecDeque<Box<Request>>,
    /// The `user_data` of calls in the submission queue that the kernel has not taken, oldest
    /// first.
    staged: VecDeque<u64>,
    /// The number of calls that the kernel has taken.
    in_kernel: usize,
    /// Tasks of the flush in progress, and tasks that arrived too late for it.
    flushing: Vec<u32>,
    to_flush: Vec<u32>,
    done: Vec<Completion>,
    /// Whether the kernel takes no more calls. They are then made on this thread.
    broken: bool,
    /// Calls in progress, for the image's trace.
    #[cfg(any(test, feature = "conformance"))]
    traced: std::collections::HashMap<u64, crate::conformance::powerloss::Ticket>,
    helper: Helper,
}

/// The image's threads, for discards of devices, which a ring does not have, and for writes that
/// would wait in the ring behind those of other files ([`Image::is_queued_by_rings`]). The ring
/// polls their event, so that its own descriptor stays the queue's only event.
#[derive(Default)]
struct Helper {
    /// The queue to the threads, created when it is first needed.
    queue: Option<ThreadedQueue>,
    /// Tasks to give to the threads.
    tasks: Vec<Task>,
    /// The number of requests at the threads.
    requests: usize,
    /// Whether the ring polls the threads' event.
    polled: bool,
}

impl UringQueue {
    /// # Errors
    /// The system's error.
    pub(super) fn new(image: &Arc<Image>, pool: &Arc<SharedPool>) -> io::Result<Self> {
        let ring = IoUring::builder().dontfork().build(RING_DEPTH * 2)?;
        // Kernels before 5.15 have no such limit. 0 leaves that of sockets and the like.
        let _ = ring.submitter().register_iowq_max_workers(&mut [KERNEL_THREADS, 0]);
        // The locked descriptor is never used here: the kernel releases a ring's files some time
        // after the ring is closed.
        let cached = image.unlocked.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        // If no more files can be opened, flushes share the descriptor of the other queues.
        let flushed = reopen(cached, image.read_only, 0).or_else(|_| cached.try_clone())?;
        let direct = image.direct.as_ref().map_or(cached, |direct| &direct.file);
        ring.submitter().register_files(&[cached, direct, &flushed].map(AsRawFd::as_raw_fd))?;
        let fixed = image.fixed.get().cloned().filter(|fixed| {
            let attached = fixed.attach(&ring);
            if let Err(error) = &attached {
                image.log.log(|left_out| {
                    warn!(%error, left_out, "buffers=fixed does not work for a queue of a disk: \
                        the kernel looks up the memory of each request");
                });
            }
            attached.is_ok()
        });
        Ok(Self {
            ring,
            image: Arc::clone(image),
            pool: Arc::clone(pool),
            _flushed: flushed,
            fixed,
            fixed_calls: 0,
            tasks: Vec::new(),
            free: Vec::new(),
            ready: VecDeque::new(),
            waiting: VecDeque::new(),
            staged: VecDeque::new(),
            in_kernel: 0,
            flushing: Vec::new(),
            to_flush: Vec::new(),
            done: Vec::new(),
            broken: false,
            #[cfg(any(test, feature = "conformance"))]
            traced: std::collections::HashMap::new(),
            helper: Helper::default(),
        })
    }

    /// Returns the most kernel threads of the worker's rings for files.
    #[cfg(test)]
    pub(super) fn kernel_threads(&self) -> io::Result<u32> {
        let mut limits = [0, 0];
        self.ring.submitter().register_iowq_max_workers(&mut limits)?;
        Ok(limits[0])
    }

    /// Starts requests as far as possible, makes every call that is due, and gives them to the
    /// kernel.
    fn advance(&mut self) {
        loop {
            self.begin_waiting();
            if let Some(id) = self.ready.pop_front() {
                self.step(id);
            } else if self.flushing.is_empty() && !self.to_flush.is_empty() {
                self.begin_flush();
            } else {
                self.give_to_helper();
                self.poll_helper();
                self.enter();
                // Calls that were made on this thread may have successors.
                if self.ready.is_empty() && self.helper.tasks.is_empty() {
                    break;
                }
            }
        }
    }

    fn begin_waiting(&mut self) {
        while self.tasks.len() - self.free.len() < RING_DEPTH as usize {
            let Some(request) = self.waiting.pop_front() else { return };
            // BLKDISCARD is the only call without an operation of the ring.
            if self.image.is_device && request.operation == Operation::Discard {
                self.helper.tasks.push(Task::new(request));
                continue;
            }
            let task = Some(Task::new(request));
            let id = match self.free.pop() {
                Some(id) => {
                    self.tasks[id as usize] = task;
                    id
                }
                None => {
                    self.tasks.push(task);
                    (self.tasks.len() - 1) as u32
                }
            };
            self.ready.push_back(id);
        }
    }

    /// Leaves the rest of a task to the image's threads.
    fn hand_over(&mut self, id: u32) {
        if let Some(task) = self.tasks.get_mut(id as usize).and_then(Option::take) {
            self.free.push(id);
            self.helper.tasks.push(task);
        }
    }

    /// Gives the tasks for the image's threads to them.
    fn give_to_helper(&mut self) {
        let tasks = self.helper.tasks.len();
        if tasks == 0 {
            return;
        }
        if self.helper.queue.is_none() && !self.broken {
            self.helper.queue = ThreadedQueue::new(self.pool.get(&self.image)).ok();
        }
        match &self.helper.queue {
            Some(queue) if !self.broken => {
                self.helper.requests += tasks;
                queue.give(self.helper.tasks.drain(..));
            }
            // Without a thread, or a ring that can report its result, the requests run here: slow,
            // but correct.
            _ => self.done.extend(self.helper.tasks.drain(..).map(|task| task.run(&self.image))),
        }
    }

    /// Makes the ring report the threads' event.
    fn poll_helper(&mut self) {
        if self.helper.requests == 0 || self.helper.polled || self.broken {
            return;
        }
        let Some(event) = self.helper.queue.as_ref().and_then(Queue::event) else { return };
        let poll =
            opcode::PollAdd::new(types::Fd(event), libc::POLLIN as u32).build().user_data(HELPED);
        // SAFETY: the entry names no memory.
        if unsafe { self.ring.submission().push(&poll) }.is_ok() {
            self.staged.push_back(HELPED);
            self.helper.polled = true;
        }
    }

    /// Takes the requests that the threads have finished.
    fn take_helped(&mut self) {
        self.helper.polled = false;
        if let Some(queue) = &mut self.helper.queue {
            let before = self.done.len();
            queue.poll(&mut self.done);
            self.helper.requests -= self.done.len() - before;
        }
    }

    /// Makes a task's next call, or ends the task.
    fn step(&mut self, id: u32) {
        let Some(task) = self.tasks.get_mut(id as usize).and_then(Option::as_mut) else { return };
        match task.next(&self.image) {
            Next::Done(result) => {
                if let Some(task) = self.tasks[id as usize].take() {
                    self.free.push(id);
                    self.done.push(task.into_completion(result));
                }
            }
            Next::Call(Call::Sync) => self.to_flush.push(id),
            Next::Call(call) => self.make(id.into(), call),
        }
    }

    /// Begins one flush for all tasks that wait for one. Each of them was submitted after the
    /// writes that it must cover.
    fn begin_flush(&mut self) {
        std::mem::swap(&mut self.flushing, &mut self.to_flush);
        self.make(SYNC, Call::Sync);
    }

    fn make(&mut self, user_data: u64, call: Call) {
        let queued = self.image.is_queued_by_rings(call) && !self.broken;
        let nowait = queued && self.image.may_write_nowait(call);
        if queued && !nowait {
            return self.hand_over(user_data as u32);
        }
        #[cfg(test)]
        if let Some(result) = self.image.fault() {
            return self.returned(user_data, result);
        }
        // SAFETY: the call's memory belongs to its task, which is still in its slot.
        let entry = unsafe { entry(call, self.fixed.as_deref(), nowait) };
        let Some(Entry { entry, fixed }) = entry.filter(|_| !self.broken) else {
            let result = self.image.perform(call);
            return self.returned(user_data, result);
        };
        // A ring is useful for several calls at a time, and for calls that have to wait.
        if !fixed
            && self.is_idle()
            && let Some(result) = self.image.read_nowait(call)
        {
            return self.returned(user_data, result);
        }
        #[cfg(any(test, feature = "conformance"))]
        if let Some(trace) = &self.image.trace
            && let Some(ticket) = super::trace::issue(trace, call)
        {
            self.traced.insert(user_data, ticket);
        }
        // SAFETY: the memory of the call belongs to its task, which stays in its slot until the
        // completion has arrived: the queue is not dropped before (see `drop`).
        match unsafe { self.ring.submission().push(&entry.user_data(user_data)) } {
            Ok(()) => {
                self.staged.push_back(user_data);
                self.fixed_calls += u64::from(fixed);
            }
            // This cannot happen: the queue has space for one call of each task, and a flush.
            Err(_) => {
                let result = self.image.perform(call);
                self.returned(user_data, result);
            }
        }
    }

    /// Returns whether the current task is the only one in progress.
    fn is_idle(&self) -> bool {
        self.in_kernel == 0
            && self.staged.is_empty()
            && self.ready.is_empty()
            && self.waiting.is_empty()
    }

    /// Gives the staged calls to the kernel.
    fn enter(&mut self) {
        if self.fixed_calls != 0 {
            self.image.count_fixed(std::mem::take(&mut self.fixed_calls));
        }
        let mut tries = 0;
        while !self.staged.is_empty() && !self.broken {
            match self.ring.submit() {
                Ok(taken) => {
                    let taken = taken.min(self.staged.len());
                    self.staged.drain(..taken);
                    self.in_kernel += taken;
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // The next completion triggers another attempt.
                    Some(libc::EAGAIN | libc::EBUSY | libc::ENOMEM) if self.in_kernel != 0 => {
                        return;
                    }
                    Some(libc::EAGAIN | libc::EBUSY | libc::ENOMEM) if tries < 1000 => {
                        tries += 1;
                        std::thread::yield_now();
                    }
                    _ => self.give_up(&error),
                },
            }
        }
    }

    /// Makes the calls that the kernel did not take on this thread. The submission queue is never
    /// entered again, so that the kernel cannot take them later.
    fn give_up(&mut self, error: &io::Error) {
        self.image.log.log(|left_out| {
            error!(%error, left_out, "io_uring takes no more requests: a disk continues with one \
                request at a time");
        });
        self.broken = true;
        // The ring can no longer report the threads' requests, so this waits for them.
        while self.helper.requests != 0 {
            self.helper.queue.iter().filter_map(Queue::event).for_each(|event| {
                crate::wait::wait_for(event);
            });
            self.take_helped();
        }
        while let Some(user_data) = self.staged.pop_front() {
            let call = match user_data {
                SYNC => Call::Sync,
                HELPED => continue,
                id => match self.tasks.get_mut(id as usize).and_then(Option::as_mut) {
                    Some(task) => match task.next(&self.image) {
                        Next::Call(call) => call,
                        Next::Done(_) => continue,
                    },
                    None => continue,
                },
            };
            let result = self.image.perform(call);
            self.returned(user_data, result);
        }
    }

    /// Takes completions. Returns true when there were any.
    fn harvest(&mut self) -> bool {
        let mut any = false;
        while let Some((user_data, result)) = self.next_completion() {
            any = true;
            self.in_kernel = self.in_kernel.saturating_sub(1);
            self.returned(user_data, result);
        }
        any
    }

    fn next_completion(&mut self) -> Option<(u64, i32)> {
        self.ring.completion().next().map(|entry| (entry.user_data(), entry.result()))
    }

    fn returned(&mut self, user_data: u64, result: i32) {
        #[cfg(any(test, feature = "conformance"))]
        if let (Some(trace), Some(ticket)) = (&self.image.trace, self.traced.remove(&user_data)) {
            super::trace::complete(trace, ticket, result);
        }
        if user_data == HELPED {
            return self.take_helped();
        }
        if user_data != SYNC {
            return self.task_returned(user_data as u32, result);
        }
        let mut flushed = std::mem::take(&mut self.flushing);
        for id in flushed.drain(..) {
            self.task_returned(id, result);
        }
        // The list keeps its memory, unless another flush has begun meanwhile.
        if self.flushing.is_empty() {
            self.flushing = flushed;
        }
    }

    fn task_returned(&mut self, id: u32, result: i32) {
        let Some(task) = self.tasks.get_mut(id as usize).and_then(Option::as_mut) else { return };
        if result < 0
            && let Next::Call(call) = task.next(&self.image)
            && self.image.must_wait_to_write(call, result)
        {
            return self.hand_over(id);
        }
        task.returned(&self.image, result);
        self.ready.push_back(id);
    }
}

impl Queue for UringQueue {
    fn submit(&mut self, requests: &mut Vec<Box<Request>>) {
        self.waiting.extend(requests.drain(..));
        self.advance();
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        // Completions lead to further calls, some of which complete immediately.
        while self.harvest() {
            self.advance();
        }
        done.append(&mut self.done);
    }

    fn event(&self) -> Option<RawFd> {
        Some(self.ring.as_raw_fd())
    }
}

impl Drop for UringQueue {
    /// Waits until the kernel has completed all calls: file I/O that was begun cannot be cancelled.
    /// Calls that the kernel never took are dropped.
    fn drop(&mut self) {
        self.waiting.clear();
        // Submits the staged calls, unless the kernel takes no more: then its queue is not used
        // again.
        if !self.broken {
            self.enter();
        }
        // The poll has to end here. The threads' queue itself waits for requests with memory, when
        // it is dropped.
        self.helper.queue.iter().for_each(ThreadedQueue::wake);
        while self.in_kernel != 0 {
            if self.next_completion().is_some() {
                self.in_kernel -= 1;
                continue;
            }
            let mut poll =
                libc::pollfd { fd: self.ring.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one valid pollfd of an open descriptor.
            unsafe { libc::poll(&raw mut poll, 1, -1) };
        }
        if self.fixed.is_some() {
            // The memory is unregistered now, and not when the kernel releases the ring.
            let _ = self.ring.submitter().unregister_buffers();
        }
    }
}
