//! Metrics of dynamic memory.

use super::super::InspectReport;
use super::text::{Kind, Text};

/// Adds dynamic memory, if the machine has it.
pub(super) fn memory(text: &mut Text, report: &InspectReport) {
    let Some(memory) = &report.memory else { return };
    let mut sizes = text.family(
        "synthvm_dynamic_memory_bytes",
        Kind::Gauge,
        "Memory of the guest, by what it is. Some are absent until the guest reports.",
    );
    for (kind, bytes) in [
        ("assigned", Some(memory.sizes.assigned)),
        ("ballooned", Some(memory.sizes.ballooned)),
        ("returned", Some(memory.sizes.returned)),
        ("added", Some(memory.sizes.added)),
        ("resident", Some(memory.sizes.resident)),
        ("demand", memory.sizes.demand),
        ("available", memory.sizes.available),
        ("target", memory.sizes.target),
    ] {
        if let Some(bytes) = bytes {
            sizes.sample(&[("kind", kind)], bytes);
        }
    }
    let counters = &memory.counters;
    let mut pages = text.family(
        "synthvm_dynamic_memory_pages_total",
        Kind::Counter,
        "Pages of 4 KiB, by what became of them.",
    );
    for (result, count) in [
        ("ballooned", counters.pages_ballooned),
        ("unballooned", counters.pages_unballooned),
        ("returned", counters.pages_returned),
        ("shared", counters.pages_shared),
        ("hinted", counters.pages_hinted),
    ] {
        pages.sample(&[("result", result)], count);
    }
    let mut refused = text.family(
        "synthvm_dynamic_memory_refused_total",
        Kind::Counter,
        "Messages and ranges of the guest that were refused, and errors of the host's kernel.",
    );
    for (cause, count) in [
        ("message", counters.messages_refused),
        ("range", counters.ranges_refused),
        ("host", counters.host_errors),
    ] {
        refused.sample(&[("cause", cause)], count);
    }
}
