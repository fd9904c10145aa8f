//! A backend that fails or stalls requests, to test the layers above it.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::merged::MergedEvent;
use super::{Backend, Completion, IoError, Queue, Request, Wrapper};

/// The fate of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request is executed.
    None,
    /// The request fails with this error and has no effect.
    Fail(IoError),
    /// The request waits until [`Hold::release`], and is then executed.
    Stall,
}

/// Decides the fate of each request.
type Judge = dyn Fn(&Request) -> Fault + Send + Sync;

/// A wrapper that adds faults to another backend.
pub struct Faulty {
    inner: Arc<dyn Backend>,
    judge: Arc<Judge>,
    hold: Hold,
}

impl Faulty {
    /// Returns `inner` with faults: `judge` decides the fate of each request.
    pub fn new(
        inner: Arc<dyn Backend>,
        judge: impl Fn(&Request) -> Fault + Send + Sync + 'static,
    ) -> Self {
        Self { inner, judge: Arc::new(judge), hold: Hold::default() }
    }

    /// Returns the handle that releases stalled requests.
    pub fn hold(&self) -> Hold {
        self.hold.clone()
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Faulty").field(&self.inner).finish()
    }
}

impl Wrapper for Faulty {
    fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    fn wrap_queue(&self, inner: Box<dyn Queue>) -> io::Result<Box<dyn Queue>> {
        let event = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        self.hold.register(&event);
        Ok(Box::new(FaultyQueue {
            merged: MergedEvent::new(inner.event().into_iter().chain([event.as_raw_fd()]))?,
            inner,
            judge: Arc::clone(&self.judge),
            hold: self.hold.clone(),
            event,
            stalled: Vec::new(),
            passed: Vec::new(),
            failed: Vec::new(),
        }))
    }
}

/// Releases the stalled requests of all queues of one [`Faulty`].
#[derive(Clone, Debug, Default)]
pub struct Hold {
    inner: Arc<HoldInner>,
}

#[derive(Debug, Default)]
struct HoldInner {
    released: AtomicBool,
    queues: Mutex<Vec<Arc<EventFd>>>,
}

impl Hold {
    /// Releases all stalled requests. Later requests do not stall.
    pub fn release(&self) {
        self.inner.released.store(true, Ordering::Release);
        for event in self.inner.queues.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            // A write fails only if the counter is at its maximum, and then the event is readable
            // already.
            let _ = event.write(1);
        }
    }

    fn register(&self, event: &Arc<EventFd>) {
        self.inner.queues.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(event));
    }

    fn is_released(&self) -> bool {
        self.inner.released.load(Ordering::Acquire)
    }
}

struct FaultyQueue {
    merged: MergedEvent,
    inner: Box<dyn Queue>,
    judge: Arc<Judge>,
    hold: Hold,
    event: Arc<EventFd>,
    stalled: Vec<Box<Request>>,
    passed: Vec<Box<Request>>,
    failed: Vec<Completion>,
}

impl Queue for FaultyQueue {
    fn submit(&mut self, requests: &mut Vec<Box<Request>>) {
        for request in requests.drain(..) {
            match (self.judge)(&request) {
                Fault::Stall if !self.hold.is_released() => self.stalled.push(request),
                Fault::None | Fault::Stall => self.passed.push(request),
                Fault::Fail(error) => self.failed.push(request.complete(Err(error), 0)),
            }
        }
        self.inner.submit(&mut self.passed);
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        let _ = self.event.read();
        if self.hold.is_released() {
            self.inner.submit(&mut self.stalled);
        }
        done.append(&mut self.failed);
        self.inner.poll(done);
    }

    fn event(&self) -> Option<RawFd> {
        Some(self.merged.as_raw_fd())
    }
}
