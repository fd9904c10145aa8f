//! Metrics of host sockets.

use super::super::InspectReport;
use super::text::{Kind, Text};

/// Adds the host sockets, if the machine has them.
pub(super) fn vsock(text: &mut Text, report: &InspectReport) {
    let Some(vsock) = &report.vsock else { return };
    let mut connections = text.family(
        "synthvm_vsock_connections",
        Kind::Gauge,
        "Socket connections that are open, and that the guest has not opened yet.",
    );
    connections.sample(&[("state", "open")], vsock.open);
    connections.sample(&[("state", "pending")], vsock.pending);
    let mut opened = text.family(
        "synthvm_vsock_opened_total",
        Kind::Counter,
        "Socket connections that were opened, by the end that connected.",
    );
    opened.sample(&[("by", "guest")], vsock.from_guest);
    opened.sample(&[("by", "host")], vsock.from_host);
    let mut refused = text.family(
        "synthvm_vsock_refused_total",
        Kind::Counter,
        "Socket connections that were not made, or were reset, by the reason.",
    );
    for (reason, count) in [
        ("no-listener", vsock.no_listener),
        ("unanswered", vsock.unanswered),
        ("failed", vsock.failed),
        ("bad-request", vsock.bad_requests),
        ("broken", vsock.broken),
    ] {
        refused.sample(&[("reason", reason)], count);
    }
    let mut bytes = text.family(
        "synthvm_vsock_bytes_total",
        Kind::Counter,
        "Bytes of socket connections, by direction.",
    );
    bytes.sample(&[("direction", "to-host")], vsock.bytes_to_host);
    bytes.sample(&[("direction", "to-guest")], vsock.bytes_to_guest);
}
