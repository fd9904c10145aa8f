//! The host sockets in the report for people.

use super::rates::bytes;
use super::{Align, InspectReport, Table};

const R: Align = Align::Right;

/// Returns the table of the sockets. `None`: the machine has none.
pub(super) fn vsock(now: &InspectReport) -> Option<Table> {
    let vsock = now.vsock?;
    let mut table = Table::new(&[
        ("OPEN", R),
        ("PENDING", R),
        ("FROM GUEST", R),
        ("FROM HOST", R),
        ("TO HOST", R),
        ("TO GUEST", R),
        ("REFUSED", R),
        ("UNANSWERED", R),
        ("BROKEN", R),
    ]);
    let refused = vsock.no_listener + vsock.failed + vsock.bad_requests;
    table.row([
        vsock.open.to_string(),
        vsock.pending.to_string(),
        vsock.from_guest.to_string(),
        vsock.from_host.to_string(),
        bytes(vsock.bytes_to_host),
        bytes(vsock.bytes_to_guest),
        refused.to_string(),
        vsock.unanswered.to_string(),
        vsock.broken.to_string(),
    ]);
    Some(table)
}
