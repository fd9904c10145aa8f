//! The LUN queues of a worker: its own queue to the backend of each logical unit.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::in_flight::QueueKey;
use crate::counters::Transfers;
use crate::lun::Lun;
use crate::lun_set::LunSet;
use crate::protocol::MAX_LUNS;
use synthvm_block::{Completion, IoError, Operation, Queue, Request};

/// A worker's queue of requests to one logical unit.
pub(super) struct LunQueue {
    pub(super) lun: Arc<Lun>,
    /// The backend's queue, or the reason why it could not be opened.
    queue: Result<Box<dyn Queue>, IoError>,
    batch: Vec<Box<Request>>,
    /// Identifies this queue in the in-flight table.
    pub(super) key: QueueKey,
    in_flight: usize,
    /// Copy of `in_flight` for reports, updated once a batch.
    reported: Arc<AtomicU64>,
    /// Reads and writes completed in this poll, not yet added to the disk's counters.
    transfers: Transfers,
    /// Compound commands in progress. Such a command may have no subrequest in flight.
    pub(super) compound: usize,
}

/// All LUN queues of a worker. They are refreshed when the controller's generation has changed.
pub(super) struct LunQueues {
    /// The queues of the present logical units, in order of LUN.
    queues: Vec<LunQueue>,
    /// Index in `queues` of each LUN.
    places: [Option<u8>; MAX_LUNS],
    /// Bit masks of the queues used since the last submit, and of the queues that may have requests
    /// in flight. They keep the cost of a batch independent of the number of disks.
    touched: u64,
    busy: u64,
    /// Queues of removed LUNs that still have requests in flight.
    leaving: Vec<LunQueue>,
    generation: Option<u64>,
    /// The key of the newest queue.
    newest: QueueKey,
}

impl LunQueues {
    pub(super) fn new() -> Self {
        Self {
            queues: Vec::new(),
            places: [None; MAX_LUNS],
            touched: 0,
            busy: 0,
            leaving: Vec::new(),
            generation: None,
            newest: QueueKey::QUERIES,
        }
    }

    /// Returns true if the LUNs have not changed since the last [`LunQueues::refresh`]. Costs one
    /// atomic load, as the worker asks for each packet.
    #[inline]
    pub(super) fn are_current(&self, luns: &LunSet) -> bool {
        self.generation == Some(luns.generation())
    }

    /// Applies changes of the LUNs.
    pub(super) fn refresh(&mut self, luns: &LunSet) {
        // Read before the LUNs: the next call applies a change that comes in between.
        self.generation = Some(luns.generation());
        let units = luns.luns().clone();
        let mut old = std::mem::take(&mut self.queues);
        for (place, lun) in self.places.iter_mut().zip(units) {
            *place = lun.map(|lun| {
                let kept = old.iter().position(|queue| Arc::ptr_eq(&queue.lun, &lun));
                let queue = kept.map_or_else(
                    || {
                        self.newest = self.newest.next();
                        LunQueue::new(lun, self.newest)
                    },
                    |kept| old.swap_remove(kept),
                );
                self.queues.push(queue);
                (self.queues.len() - 1) as u8
            });
        }
        self.leaving.extend(old.into_iter().filter(LunQueue::is_busy));
        // The masks had the old indices. A refresh may happen in the middle of a batch.
        self.touched = self.places_where(|queue| !queue.batch.is_empty());
        self.busy = self.places_where(|queue| queue.in_flight != 0);
    }

    /// Returns the bit mask of the queues that satisfy `wanted`.
    fn places_where(&self, wanted: impl Fn(&LunQueue) -> bool) -> u64 {
        let places = self.queues.iter().enumerate().filter(|(_, queue)| wanted(queue));
        places.fold(0, |bits, (place, _)| bits | 1 << place)
    }

    /// Returns the queue of `lun`, and marks it as used.
    pub(super) fn get_mut(&mut self, lun: u8) -> Option<&mut LunQueue> {
        let place = (*self.places.get(usize::from(lun))?)?;
        self.touched |= 1 << place;
        self.queues.get_mut(usize::from(place))
    }

    /// Returns the numbers of the present LUNs, ascending.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u8> {
        self.queues.iter().map(|queue| queue.lun.number)
    }

    /// Submits every batch to its backend.
    pub(super) fn submit(&mut self) {
        self.busy |= self.touched;
        for place in bits(std::mem::take(&mut self.touched)) {
            self.queues.get_mut(place).into_iter().for_each(LunQueue::submit);
        }
        self.leaving.iter_mut().for_each(LunQueue::submit);
    }

    /// Passes each completion to `finish`, with its queue. Requests that `finish` pushes to the
    /// queue go out with the next submit.
    pub(super) fn poll(
        &mut self,
        done: &mut Vec<Completion>,
        mut finish: impl FnMut(&mut LunQueue, Completion),
    ) {
        let mut places = bits(self.busy);
        let mut leaving = self.leaving.iter_mut();
        loop {
            let place = places.next();
            let queue = match place {
                Some(place) => self.queues.get_mut(place),
                None => leaving.next(),
            };
            let Some(queue) = queue else {
                // A bit may belong to a removed LUN.
                if place.is_some() {
                    continue;
                }
                break;
            };
            queue.poll(done, &mut finish);
            let Some(place) = place else { continue };
            if !queue.batch.is_empty() {
                self.touched |= 1 << place;
            }
            if queue.in_flight == 0 {
                self.busy &= !(1 << place);
            }
        }
        self.leaving.retain(LunQueue::is_busy);
    }

    /// Returns the descriptors that become readable when a queue has completions.
    pub(super) fn events(&self) -> impl Iterator<Item = RawFd> {
        let queues = self.queues.iter().chain(&self.leaving);
        queues.filter_map(|queue| queue.queue.as_ref().ok()?.event())
    }
}

impl LunQueue {
    fn new(lun: Arc<Lun>, key: QueueKey) -> Self {
        let (queue, reported) = (lun.queue(), lun.counters.new_queue());
        Self {
            lun,
            queue,
            batch: Vec::new(),
            key,
            in_flight: 0,
            reported,
            transfers: Transfers::default(),
            compound: 0,
        }
    }

    /// Returns true if requests are in flight, or a compound command will send more.
    fn is_busy(&self) -> bool {
        self.in_flight != 0 || self.compound != 0
    }

    /// Returns the error of opening the backend's queue, if it failed.
    pub(super) fn fault(&self) -> Option<IoError> {
        self.queue.as_ref().err().copied()
    }

    fn submit(&mut self) {
        if let Ok(queue) = &mut self.queue
            && !self.batch.is_empty()
        {
            self.reported.store(self.in_flight as u64, Ordering::Relaxed);
            queue.submit(&mut self.batch);
        }
    }

    fn poll(&mut self, done: &mut Vec<Completion>, finish: &mut impl FnMut(&mut Self, Completion)) {
        let Ok(queue) = &mut self.queue else { return };
        if self.in_flight == 0 {
            return;
        }
        queue.poll(done);
        if done.is_empty() {
            return;
        }
        for done in done.drain(..) {
            finish(self, done);
        }
        self.reported.store(self.in_flight as u64, Ordering::Relaxed);
        self.lun.counters.add(&std::mem::take(&mut self.transfers));
    }

    /// Counts a completed operation on `bytes` bytes.
    #[inline]
    pub(super) fn count(&mut self, operation: Operation, bytes: u64, copied: u64) {
        self.lun.counters.done_with_others(operation, bytes, copied, &mut self.transfers);
    }

    /// Counts the end of a request that was pushed here.
    #[inline]
    pub(super) fn ended(&mut self) {
        self.in_flight -= 1;
    }

    /// Adds a request to the next batch.
    pub(super) fn push(&mut self, request: Box<Request>) {
        self.in_flight += 1;
        self.batch.push(request);
    }
}

impl Drop for LunQueue {
    fn drop(&mut self) {
        // Dropping the backend's queue waits for its requests. Reports still show them meanwhile.
        self.queue = Err(IoError::Os(libc::ENODEV));
    }
}

/// Returns the numbers of the set bits, ascending.
fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    const { assert!(MAX_LUNS <= 64) };
    std::iter::from_fn(move || {
        let lowest = (word != 0).then(|| word.trailing_zeros() as usize);
        word &= word.wrapping_sub(1);
        lowest
    })
}
