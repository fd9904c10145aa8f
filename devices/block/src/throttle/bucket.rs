//! When a request may go. Times are nanoseconds since some beginning; no clock is asked here.

use std::num::NonZeroU64;

use crate::{Operation, Request};

/// Nanoseconds of a second.
const SECOND: u128 = 1_000_000_000;

/// So many a second, and so many at once after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests or bytes each second, in the long run.
    pub per_second: NonZeroU64,
    /// Requests or bytes that may go at once beyond that, after a pause that saved them up. A
    /// request that is larger than what is there goes as soon as nothing is owed, and the next
    /// ones wait until it is paid for.
    pub burst: u64,
}

impl Rate {
    /// So many a second, with a burst of a tenth of a second.
    pub fn per_second(per_second: NonZeroU64) -> Self {
        Self { per_second, burst: per_second.get() / 10 }
    }
}

/// The limits of a disk. `None`: no limit. All hold together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests of every kind that counts.
    pub requests: Option<Rate>,
    /// Reads.
    pub reads: Option<Rate>,
    /// Writes, discards and zeroes.
    pub writes: Option<Rate>,
    /// Bytes moved.
    pub bytes: Option<Rate>,
    /// Bytes read.
    pub read_bytes: Option<Rate>,
    /// Bytes written.
    pub written_bytes: Option<Rate>,
}

/// One bucket of each limit, as the time at which it owes nothing.
#[derive(Debug)]
pub(super) struct Buckets {
    limits: Limits,
    /// In the order of [`Buckets::costs`].
    paid_at: [u64; 6],
}

impl Buckets {
    /// Full ones.
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, paid_at: [0; 6] }
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// When `request`, which came at `now`, may go: not before `now`. It is charged for, so that
    /// the next one finds less.
    pub(super) fn reserve(&mut self, request: &Request, now: u64) -> u64 {
        let costs = self.costs(request);
        let charged = || costs.into_iter().zip(self.paid_at).filter(|((_, cost), _)| *cost != 0);
        let limited = charged().filter(|((rate, _), _)| rate.is_some());
        let start = limited.map(|(_, paid_at)| paid_at).fold(now, u64::max);
        for ((rate, cost), paid_at) in costs.into_iter().zip(&mut self.paid_at) {
            if let Some(rate) = rate.filter(|_| cost != 0) {
                // The savings are never more than the burst.
                let saved_since = start.saturating_sub(time_for(rate, rate.burst));
                *paid_at = (*paid_at).max(saved_since).saturating_add(time_for(rate, cost));
            }
        }
        start
    }

    fn costs(&self, request: &Request) -> [(Option<Rate>, u64); 6] {
        let (reads, writes, bytes) = match request.operation {
            Operation::Read => (1, 0, request.length),
            Operation::Write { .. } => (0, 1, request.length),
            Operation::Discard | Operation::WriteZeroes { .. } => (0, 1, 0),
            Operation::Flush => (0, 0, 0),
        };
        let limits = &self.limits;
        [
            (limits.requests, reads + writes),
            (limits.reads, reads),
            (limits.writes, writes),
            (limits.bytes, bytes),
            (limits.read_bytes, bytes * reads),
            (limits.written_bytes, bytes * writes),
        ]
    }
}

/// How long `rate` takes for `count`.
fn time_for(rate: Rate, count: u64) -> u64 {
    let time = u128::from(count) * SECOND / u128::from(rate.per_second.get());
    u64::try_from(time).unwrap_or(u64::MAX)
}
