//! The integration services in the report for people.

use super::{Align, InspectReport, Table};

const L: Align = Align::Left;
const R: Align = Align::Right;

/// Returns the table of the services. `None`: the machine offers none.
pub(super) fn services(now: &InspectReport) -> Option<Table> {
    let report = now.services.as_ref()?;
    let mut table = Table::new(&[
        ("SERVICE", L),
        ("STATE", L),
        ("VERSION", L),
        ("REQUESTS", R),
        ("RESPONSES", R),
        ("TIMEOUTS", R),
        ("LATE", R),
        ("REJECTED", R),
        ("GUEST", L),
    ]);
    for service in &report.services {
        let counts =
            [service.requests, service.responses, service.timeouts, service.late, service.rejected];
        let [requests, responses, timeouts, late, rejected] = counts.map(|n| n.to_string());
        let is_heartbeat = service.name == synthvm_services::protocol::ServiceKind::Heartbeat;
        let guest = if is_heartbeat { report.heartbeat.text() } else { "" };
        table.row([
            service.name.to_string(),
            service.state.text().to_owned(),
            service.version.clone().unwrap_or_default(),
            requests,
            responses,
            timeouts,
            late,
            rejected,
            guest.to_owned(),
        ]);
    }
    Some(table)
}
