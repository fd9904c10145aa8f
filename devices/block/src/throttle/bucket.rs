//! The earliest start of requests. Times are nanoseconds since an arbitrary start; this module
//! reads no clock.

use std::num::NonZeroU64;

use crate::{Operation, Request};

/// Nanoseconds of a second.
const SECOND: u128 = 1_000_000_000;

/// A rate per second, and a burst after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests or bytes each second on average.
    pub per_second: NonZeroU64,
    /// Requests or bytes that may start immediately beyond the rate, after a pause in which they
    /// accumulated. A request that is larger than the accumulated burst starts as soon as there is
    /// no debt, and later requests wait until the rate has paid for it.
    pub burst: u64,
}

impl Rate {
    /// Returns this rate, with a burst of a tenth of a second.
    pub fn per_second(per_second: NonZeroU64) -> Self {
        Self { per_second, burst: per_second.get() / 10 }
    }
}

/// The limits of a disk. `None`: no limit. A request must meet all of them.
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

/// One bucket for each limit, in the form of the time at which its debt is paid.
#[derive(Debug)]
pub(super) struct Buckets {
    limits: Limits,
    /// Times, in the order of [`Buckets::costs`].
    paid_at: [u64; 6],
}

impl Buckets {
    /// Returns full buckets.
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, paid_at: [0; 6] }
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// Returns the earliest start of `request`, which arrived at `now`: not before `now`. The
    /// request is charged, so that later requests find less.
    pub(super) fn reserve(&mut self, request: &Request, now: u64) -> u64 {
        let costs = self.costs(request);
        let charged = || costs.into_iter().zip(self.paid_at).filter(|((_, cost), _)| *cost != 0);
        let limited = charged().filter(|((rate, _), _)| rate.is_some());
        let start = limited.map(|(_, paid_at)| paid_at).fold(now, u64::max);
        for ((rate, cost), paid_at) in costs.into_iter().zip(&mut self.paid_at) {
            if let Some(rate) = rate.filter(|_| cost != 0) {
                // A bucket never holds more than the burst.
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

/// Returns the nanoseconds in which `rate` permits `count`.
fn time_for(rate: Rate, count: u64) -> u64 {
    let time = u128::from(count) * SECOND / u128::from(rate.per_second.get());
    u64::try_from(time).unwrap_or(u64::MAX)
}
