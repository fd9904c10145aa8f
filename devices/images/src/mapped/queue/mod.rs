//! One worker's queue: requests to the disk become subrequests to its files.
//!
//! Most requests read or write one run of one file that is known. They pass through the caller's
//! own lists: only their offset changes on the way to the file ([`MappedQueue::redirect`]) and
//! their tag on the way back ([`MappedQueue::finish_whole`]). All others are taken out and become
//! subrequests of [`pending::Compound`].

mod complete;
mod fill;
mod pending;
mod slab;
mod start;

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use synthvm_block::{Completion, Operation, Queue, Request};

use super::Map;
use super::events::Events;
use super::extents::Extents;
use super::job::Job;
use super::mailbox::{Answer, Mailbox};
use super::thread::MetadataThread;
use pending::{Lookup, Pending};
use slab::Slab;

/// The queue of one worker. Fields drop in order: first the files' queues, which wait until no
/// request uses the memory; the metadata thread after the map, because it then drops the map's last
/// reference.
pub(super) struct MappedQueue {
    queues: Vec<Box<dyn Queue>>,
    /// For each of the files, the subrequests that are not submitted yet.
    batches: Vec<Vec<Box<Request>>>,
    events: Events,
    /// Requests in flight. the tag of a subrequest is the number of its request.
    in_flight: Slab<Pending>,
    /// Requests that wait for the metadata thread. The ticket of an answer is the number of its
    /// request.
    lookups: Slab<Lookup>,
    /// Finished requests that have not been polled.
    done: Vec<Completion>,
    /// An empty list whose memory is reused.
    extents: Extents,
    answers: Vec<Answer>,
    /// The mailbox for the metadata thread's answers. `None`: the format never needs the thread.
    mailbox: Option<Arc<Mailbox>>,
    map: Arc<dyn Map>,
    thread: Arc<MetadataThread>,
}

impl MappedQueue {
    /// Returns a queue to the files of `map`.
    ///
    /// # Errors
    /// The system's error: out of file descriptors, memory or threads.
    pub(super) fn new(map: Arc<dyn Map>, thread: Arc<MetadataThread>) -> io::Result<Self> {
        let queues = map.files().iter().map(|file| file.queue()).collect::<io::Result<Vec<_>>>()?;
        let mailbox = map.may_block().then(Mailbox::new).transpose()?.map(Arc::new);
        Ok(Self {
            batches: queues.iter().map(|_| Vec::new()).collect(),
            events: Events::of(&queues, mailbox.as_ref().map(|mailbox| mailbox.event()))?,
            queues,
            in_flight: Slab::new(),
            lookups: Slab::new(),
            done: Vec::new(),
            extents: Extents::default(),
            answers: Vec::new(),
            mailbox,
            map,
            thread,
        })
    }

    /// Asks the metadata thread for the location of the range.
    fn look_up(&mut self, lookup: Lookup, operation: Operation, offset: u64, length: u64) {
        let ticket = self.lookups.insert(lookup);
        let job = Job::new(ticket, operation, offset, length);
        let job = match &self.mailbox {
            Some(mailbox) => self.thread.send(mailbox, job).err(),
            None => Some(job),
        };
        // Without a metadata thread, the worker runs the job and blocks.
        self.answers.extend(job.map(|job| job.run(&*self.map)));
    }

    fn take_answers(&mut self) {
        if self.lookups.is_empty() {
            return;
        }
        let mut answers = std::mem::take(&mut self.answers);
        if let Some(mailbox) = &self.mailbox {
            mailbox.take(&mut answers);
        }
        for answer in answers.drain(..) {
            self.answered(&answer);
        }
        if self.answers.is_empty() {
            self.answers = answers;
        }
    }

    fn answered(&mut self, answer: &Answer) {
        match (self.lookups.take(answer.ticket), answer.result) {
            (Some(Lookup::Request { request, progress }), Ok(bytes)) => {
                self.proceed(request, progress, bytes, &answer.extents);
            }
            (Some(Lookup::Request { request, .. }), Err(error)) => {
                self.done.push(request.complete(Err(error), 0));
            }
            (Some(Lookup::Flush(slot)), Ok(_)) => self.flush(slot),
            (Some(Lookup::Flush(slot)), Err(error)) => self.fail(slot, error),
            (None, _) => {}
        }
    }

    fn submit_batches(&mut self) -> bool {
        let mut any = false;
        for (queue, batch) in self.queues.iter_mut().zip(&mut self.batches) {
            if !batch.is_empty() {
                any = true;
                queue.submit(batch);
            }
        }
        any
    }
}

impl Queue for MappedQueue {
    fn submit(&mut self, requests: &mut Vec<Box<Request>>) {
        let mut at = 0;
        while let Some(request) = requests.get_mut(at) {
            match self.redirect(request) {
                Some(0) => at += 1,
                Some(file) => self.batches[file].push(requests.swap_remove(at)),
                None => self.start(requests.swap_remove(at)),
            }
        }
        // All requests that remain in the list go to the first file.
        if let Some(queue) = self.queues.first_mut().filter(|_| !requests.is_empty()) {
            queue.submit(requests);
        }
        self.submit_batches();
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        loop {
            self.take_answers();
            let mut at = done.len();
            for queue in &mut self.queues {
                queue.poll(done);
            }
            while let Some(one) = done.get_mut(at) {
                if self.finish_whole(one) {
                    at += 1;
                } else {
                    self.back(done.swap_remove(at));
                }
            }
            // Subrequests that are submitted here may complete immediately, without an event.
            if !self.submit_batches() && self.answers.is_empty() {
                break;
            }
        }
        done.append(&mut self.done);
    }

    fn event(&self) -> Option<RawFd> {
        self.events.descriptor()
    }
}

impl Drop for MappedQueue {
    /// Withdraws the queue's jobs from the metadata thread, which may be busy with other requests
    /// for a long time.
    fn drop(&mut self) {
        if let Some(mailbox) = &self.mailbox {
            self.thread.forget(mailbox);
        }
    }
}
