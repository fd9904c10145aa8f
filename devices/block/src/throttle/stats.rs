//! Counters of delayed requests, for `inspect`.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::{Operation, Request};

/// Requests that a disk's limits have delayed. A request counts when it goes on, not while it
/// waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThrottleStats {
    /// Requests that did not go on at once.
    pub delayed_requests: u64,
    /// Bytes that those read and wrote.
    pub delayed_bytes: u64,
    /// Microseconds that they waited, all together, behind each other's waits as well.
    pub delayed_us: u64,
}

/// The counters, written by all queues. Touched only by requests that waited.
#[derive(Debug, Default)]
pub(super) struct Delays {
    requests: AtomicU64,
    bytes: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Delays {
    /// `request` goes on after so many nanoseconds; 0: at once.
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
