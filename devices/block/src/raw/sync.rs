//! Synchronous I/O on the worker's own thread.

use std::os::fd::RawFd;
use std::sync::Arc;

use super::image::Image;
use super::task::Task;
use crate::{Completion, Queue, Request};

/// One worker's queue. All requests are complete when `submit` returns.
pub(super) struct SyncQueue {
    image: Arc<Image>,
    done: Vec<Completion>,
}

impl SyncQueue {
    pub(super) fn new(image: Arc<Image>) -> Self {
        Self { image, done: Vec::new() }
    }
}

impl Queue for SyncQueue {
    fn submit(&mut self, requests: &mut Vec<Box<Request>>) {
        for request in requests.drain(..) {
            self.done.push(Task::new(request).run(&self.image));
        }
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        done.append(&mut self.done);
    }

    fn event(&self) -> Option<RawFd> {
        None
    }
}
