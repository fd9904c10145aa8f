//! The report as metrics in Prometheus' text format, version 0.0.4.
//!
//! A counter starts at 0 with the program, or where its channel was opened. Names end with their
//! unit; counters end with `_total`.

mod bus;
mod devices;
mod display;
mod memory;
mod services;
#[cfg(test)]
mod tests;
mod text;
mod vsock;

use std::time::Duration;

use super::InspectReport;
use text::{Kind, Text};

/// Returns all metrics of a report.
pub fn metrics(report: &InspectReport) -> String {
    let mut text = Text::default();
    machine(&mut text, report);
    bus::channels(&mut text, report);
    bus::workers(&mut text, report);
    devices::disks(&mut text, report);
    devices::networks(&mut text, report);
    display::display(&mut text, report);
    vsock::vsock(&mut text, report);
    services::services(&mut text, report);
    memory::memory(&mut text, report);
    text.finish()
}

fn machine(text: &mut Text, report: &InspectReport) {
    let machine = &report.machine;
    let uptime = Duration::from_millis(machine.uptime_ms).as_secs_f64();
    text.family("synthvm_uptime_seconds", Kind::Gauge, "Time since the program started.")
        .sample(&[], uptime);
    text.family("synthvm_memory_bytes", Kind::Gauge, "Guest RAM.")
        .sample(&[], machine.memory_bytes);
    text.family("synthvm_resets_total", Kind::Counter, "Restarts of the guest.")
        .sample(&[], machine.resets);
    text.family(
        "synthvm_leaked_bytes",
        Kind::Gauge,
        "Address space that the host refused to unmap.",
    )
    .sample(&[], machine.leaked_bytes);
    text.family("synthvm_guest_panicked", Kind::Gauge, "1 if the guest reported a panic.")
        .sample(&[], u64::from(report.panic.is_some()));
    let mut exits = text.family(
        "synthvm_vcpu_exits_total",
        Kind::Counter,
        "Exits of a vCPU to user space, by their reason.",
    );
    for vcpu in &report.vcpus {
        let index = vcpu.index.to_string();
        let counts = vcpu.exits;
        for (reason, count) in [
            ("post_message", counts.post_message),
            ("signal_event", counts.signal_event),
            ("io", counts.io),
            ("mmio", counts.mmio),
            ("msr", counts.msr),
            ("other", counts.other),
        ] {
            exits.sample(&[("vcpu", &index), ("reason", reason)], count);
        }
    }
}
