//! A queue that finishes each request in `submit`.

use std::os::fd::RawFd;

use crate::{Completion, Queue, Request};

/// A queue that executes each request by a call of `execute`, on the worker's own thread.
pub(crate) struct ImmediateQueue<F> {
    execute: F,
    done: Vec<Completion>,
}

impl<F: FnMut(Box<Request>) -> Completion + Send> ImmediateQueue<F> {
    pub(crate) fn new(execute: F) -> Self {
        Self { execute, done: Vec::new() }
    }
}

impl<F: FnMut(Box<Request>) -> Completion + Send> Queue for ImmediateQueue<F> {
    fn submit(&mut self, requests: &mut Vec<Box<Request>>) {
        for request in requests.drain(..) {
            self.done.push((self.execute)(request));
        }
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        if done.is_empty() {
            std::mem::swap(done, &mut self.done);
        } else {
            done.append(&mut self.done);
        }
    }

    fn event(&self) -> Option<RawFd> {
        None
    }
}
