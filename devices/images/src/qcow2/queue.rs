//! One worker's queue to the threads.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use synthvm_storage::backend::{IoDone, IoRequest, Queue};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::Image;
use super::pool::Sender;

/// See the module.
pub(super) struct PoolQueue {
    image: Arc<Image>,
    sender: Sender,
    finished: Arc<Finished>,
}

/// What came back.
struct Finished {
    state: Mutex<State>,
    none_left: Condvar,
    event: EventFd,
}

#[derive(Default)]
struct State {
    done: Vec<IoDone>,
    under_way: usize,
}

impl Finished {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, done: IoDone) {
        let mut state = self.lock();
        state.done.push(done);
        state.under_way -= 1;
        if state.under_way == 0 {
            self.none_left.notify_all();
        }
        // Fails only when the counter is full, and then it is readable.
        let _ = self.event.write(1);
    }
}

impl PoolQueue {
    pub(super) fn new(image: Arc<Image>, sender: Sender) -> io::Result<Self> {
        let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        let finished = Finished { state: Mutex::default(), none_left: Condvar::new(), event };
        Ok(Self { image, sender, finished: Arc::new(finished) })
    }
}

impl Queue for PoolQueue {
    fn submit(&mut self, requests: &mut Vec<IoRequest>) {
        self.finished.lock().under_way += requests.len();
        for request in requests.drain(..) {
            let (image, finished) = (Arc::clone(&self.image), Arc::clone(&self.finished));
            self.sender.send(Box::new(move || {
                let (result, copied) = image.execute(&request);
                // The image may be opened anew as soon as the request is back.
                drop(image);
                finished.push(IoDone { id: request.id, result, copied, buffer: request.buffer });
            }));
        }
    }

    fn poll(&mut self, done: &mut Vec<IoDone>) {
        let mut state = self.finished.lock();
        // Not readable: nothing came since the last time.
        let _ = self.finished.event.read();
        done.append(&mut state.done);
    }

    fn event(&self) -> Option<RawFd> {
        Some(self.finished.event.as_raw_fd())
    }
}

impl Drop for PoolQueue {
    fn drop(&mut self) {
        let mut state = self.finished.lock();
        while state.under_way != 0 {
            state = self.finished.none_left.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
