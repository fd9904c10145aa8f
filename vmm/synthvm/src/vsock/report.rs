//! The sockets' part of the machine's report.

use serde::{Deserialize, Serialize};
use synthvm_sockets::SocketReport;

/// Host sockets. See [`SocketReport`] for the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct VsockReport {
    /// Open connections.
    pub open: u64,
    /// Connections that the guest has not opened yet.
    pub pending: u64,
    /// Connections of the guest that were opened.
    pub from_guest: u64,
    /// Connections of the host that were opened.
    pub from_host: u64,
    /// Requests of the guest for a service on which no program listens.
    pub no_listener: u64,
    /// Connections that the guest did not open in time.
    pub unanswered: u64,
    /// Requests that a limit or an error of the host refused.
    pub failed: u64,
    /// Host programs that sent no valid request in time.
    pub bad_requests: u64,
    /// Connections that the guest broke.
    pub broken: u64,
    /// Bytes from the guest.
    pub bytes_to_host: u64,
    /// Bytes to the guest.
    pub bytes_to_guest: u64,
}

impl From<SocketReport> for VsockReport {
    fn from(report: SocketReport) -> Self {
        Self {
            open: report.open,
            pending: report.pending,
            from_guest: report.from_guest,
            from_host: report.from_host,
            no_listener: report.no_listener,
            unanswered: report.unanswered,
            failed: report.failed,
            bad_requests: report.bad_requests,
            broken: report.broken,
            bytes_to_host: report.bytes_to_host,
            bytes_to_guest: report.bytes_to_guest,
        }
    }
}
