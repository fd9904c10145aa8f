//! Metrics of the integration services.

use super::super::InspectReport;
use super::text::{Kind, Text};
use crate::services::{HealthName, StateName};

/// Adds the services, if the machine offers any.
pub(super) fn services(text: &mut Text, report: &InspectReport) {
    let Some(report) = &report.services else { return };
    let is_alive = !matches!(report.heartbeat, HealthName::Unknown | HealthName::Lost);
    text.family(
        "synthvm_guest_alive",
        Kind::Gauge,
        "1 while the guest answers heartbeats; 0 if it does not, or has no driver.",
    )
    .sample(&[], u64::from(is_alive));
    let mut ready =
        text.family("synthvm_service_ready", Kind::Gauge, "1 while the guest answers requests.");
    for service in &report.services {
        let is_ready = service.state == StateName::Ready;
        ready.sample(&[("service", service.name.name())], u64::from(is_ready));
    }
    let mut requests =
        text.family("synthvm_service_requests_total", Kind::Counter, "Requests to the guest.");
    for service in &report.services {
        requests.sample(&[("service", service.name.name())], service.requests);
    }
    let mut responses = text.family(
        "synthvm_service_responses_total",
        Kind::Counter,
        "Requests to the guest and packets of it, by what became of them.",
    );
    for service in &report.services {
        let name = service.name.name();
        for (result, count) in [
            ("answered", service.responses),
            ("timeout", service.timeouts),
            ("late", service.late),
            ("rejected", service.rejected),
        ] {
            responses.sample(&[("service", name), ("result", result)], count);
        }
    }
}
