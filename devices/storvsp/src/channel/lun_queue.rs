//! A worker's own view of the controller's LUNs: each with a queue of this worker alone.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::in_flight::QueueKey;
use crate::counters::Transfers;
use crate::lun::Lun;
use crate::lun_set::LunSet;
use crate::protocol::MAX_LUNS;
use synthvm_block::{Completion, IoError, Operation, Queue, Request};

/// One LUN, as this worker reaches it.
pub(super) struct LunQueue {
    pub(super) lun: Arc<Lun>,
    /// Or why there is none.
    queue: Result<Box<dyn Queue>, IoError>,
    batch: Vec<Box<Request>>,
    /// Its name in the in-flight table.
    pub(super) key: QueueKey,
    in_flight: usize,
    /// The same, for reports.
    reported: Arc<AtomicU64>,
    /// Reads and writes that ended in this poll, not yet in the disk's counters.
    transfers: Transfers,
    /// Commands in several parts that are not finished; between two parts nothing is in flight.
    pub(super) compound: usize,
}

/// All LUN queues of a worker. Refreshed only when the controller's generation changed.
pub(super) struct LunQueues {
    /// Those that are there, by LUN.
    queues: Vec<LunQueue>,
    /// Where in `queues` each LUN is.
    places: [Option<u8>; MAX_LUNS],
    /// LunQueues that were asked for since the last submit, and those that may have requests in
    /// flight, one bit for each: a controller with many disks costs no more than one with few.
    touched: u64,
    busy: u64,
    /// LUNs that were taken away while requests were in flight.
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

    /// Returns true when the LUNs have not changed since the last [`LunQueues::refresh`]. One load:
    /// this is asked for each packet.
    #[inline]
    pub(super) fn are_current(&self, luns: &LunSet) -> bool {
        self.generation == Some(luns.generation())
    }

    /// Takes over changes of the LUNs.
    pub(super) fn refresh(&mut self, luns: &LunSet) {
        // Read before the LUNs: a change that comes in between is taken over by the next call.
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
        // The bits meant the old places. A change may come when part of a batch is taken.
        self.touched = self.places_where(|queue| !queue.batch.is_empty());
        self.busy = self.places_where(|queue| queue.in_flight != 0);
    }

    /// One bit for each place whose queue is `wanted`.
    fn places_where(&self, wanted: impl Fn(&LunQueue) -> bool) -> u64 {
        let places = self.queues.iter().enumerate().filter(|(_, queue)| wanted(queue));
        places.fold(0, |bits, (place, _)| bits | 1 << place)
    }

    /// The queue of `lun`.
    pub(super) fn get_mut(&mut self, lun: u8) -> Option<&mut LunQueue> {
        let place = (*self.places.get(usize::from(lun))?)?;
        self.touched |= 1 << place;
        self.queues.get_mut(usize::from(place))
    }

    /// Numbers of the LUNs that are there, ascending.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u8> {
        self.queues.iter().map(|queue| queue.lun.number)
    }

    /// Hands every batch to its queue.
    pub(super) fn submit(&mut self) {
        self.busy |= self.touched;
        for place in bits(std::mem::take(&mut self.touched)) {
            self.queues.get_mut(place).into_iter().for_each(LunQueue::submit);
        }
        self.leaving.iter_mut().for_each(LunQueue::submit);
    }

    /// Passes each completion to `finish`, with its queue. Requests that are pushed to that
    /// queue meanwhile go with the next submit.
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
                // A bit may be that of a LUN which is gone.
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

    /// Descriptors that say when a queue has something.
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

    /// Something is in flight, or will be.
    fn is_busy(&self) -> bool {
        self.in_flight != 0 || self.compound != 0
    }

    /// Why requests cannot be queued, if they cannot.
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

    /// Counts an operation on `bytes` bytes that the backend finished.
    #[inline]
    pub(super) fn count(&mut self, operation: Operation, bytes: u64, copied: u64) {
        self.lun.counters.done_with_others(operation, bytes, copied, &mut self.transfers);
    }

    /// Counts one request less in flight: one that was pushed here.
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
        // Waits for the requests in flight; reports show them meanwhile.
        self.queue = Err(IoError::Os(libc::ENODEV));
    }
}

/// Numbers of the bits that are set.
fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    const { assert!(MAX_LUNS <= 64) };
    std::iter::from_fn(move || {
        let lowest = (word != 0).then(|| word.trailing_zeros() as usize);
        word &= word.wrapping_sub(1);
        lowest
    })
}
