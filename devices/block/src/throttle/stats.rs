//! Counters of delayed requests, for `inspect`.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::{Operation, Request};

/// The requests that a disk's limits have delayed. A request is counted when it starts, not while
/// it waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThrottleStats {
    /// Requests that did not start immediately.
    pub delayed_requests: u64,
    /// Bytes that the delayed requests read and wrote.
    pub delayed_bytes: u64,
    /// Microseconds that the delayed requests waited in total. Waiting behind another request
    /// counts for both.
    pub delayed_us: u64,
}

/// The counters, which all queues write. Only requests that waited touch them.
#[derive(Debug, Default)]
pub(super) struct Delays {
    requests: AtomicU64,
    bytes: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Delays {
    /// Counts `request`, which starts after `waited` nanoseconds. 0: without a delay.
    pub(super) fn went(&self, request: &Request, waited: u64) {
        if waited == 0 {
            return;
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        if let Operation::Read | Operation::Write { .. } = request.operation {
            self.bytes.fetch_add(request.length, Ordering::Relaxed);
        }
        self.nanoseconds.fetch_add(waited, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> ThrottleStats {
        ThrottleStats {
            delayed_requests: self.requests.load(Ordering::Relaxed),
            delayed_bytes: self.bytes.load(Ordering::Relaxed),
            delayed_us: self.nanoseconds.load(Ordering::Relaxed) / 1000,
        }
    }
}
