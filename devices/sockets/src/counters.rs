//! Counters of host sockets.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// Counters since the machine was made, and the connections at the time of the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SocketReport {
    /// Open connections.
    pub open: u64,
    /// Connections that the guest has been offered and has not opened yet.
    pub pending: u64,
    /// Connections of the guest that were opened.
    pub from_guest: u64,
    /// Connections of the host that were opened.
    pub from_host: u64,
    /// Requests of the guest for a service on which no program of the host listens.
    pub no_listener: u64,
    /// Connections that the guest did not open in time: no program listens, or it gave up.
    pub unanswered: u64,
    /// Requests of either end that a limit or an error of the host refused.
    pub failed: u64,
    /// Host programs that sent no valid request in time.
    pub bad_requests: u64,
    /// Connections that the guest broke: reset.
    pub broken: u64,
    /// Bytes from the guest.
    pub bytes_to_host: u64,
    /// Bytes to the guest.
    pub bytes_to_guest: u64,
    /// System calls that moved bytes from the guest.
    pub writes: u64,
    /// System calls that moved bytes to the guest.
    pub reads: u64,
}

/// Defines the counters and their report.
macro_rules! counters {
    ($($name:ident),*) => {
        /// The counters of all connections. The loop changes them, and reports read them.
        #[derive(Debug, Default)]
        pub struct Counters {
            $(pub(crate) $name: Counter,)*
        }

        impl Counters {
            /// Returns the present values.
            #[must_use]
            pub fn report(&self) -> SocketReport {
                SocketReport { $($name: self.$name.get(),)* }
            }
        }
    };
}

counters!(
    open,
    pending,
    from_guest,
    from_host,
    no_listener,
    unanswered,
    failed,
    bad_requests,
    broken,
    bytes_to_host,
    bytes_to_guest,
    writes,
    reads
);

/// A number.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, number: u64) {
        self.0.fetch_sub(number, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
