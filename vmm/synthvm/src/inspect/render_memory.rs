//! Dynamic memory in the report for people.

use crate::dynamic_memory::MemoryReport;

use super::{Align, InspectReport, Table};

const L: Align = Align::Left;
const R: Align = Align::Right;

/// Returns the table of dynamic memory. `None`: the machine has none.
pub(super) fn memory(now: &InspectReport) -> Option<Table> {
    now.memory.as_ref().map(table)
}

/// Returns dynamic memory for people: what `synthvm memory status` prints.
pub fn render_memory(report: &MemoryReport) -> String {
    table(report).lines().join("\n") + "\n"
}

fn table(memory: &MemoryReport) -> Table {
    let mut table = Table::new(&[
        ("MEMORY", R),
        ("TARGET", R),
        ("DEMAND", R),
        ("AVAILABLE", R),
        ("BALLOONED", R),
        ("RETURNED", R),
        ("ADDED", R),
        ("RESIDENT", R),
        ("DRIVER", L),
    ]);
    let optional = |size: Option<u64>| size.map_or_else(|| "-".to_owned(), mib);
    let driver = match (&memory.version, &memory.request) {
        (None, _) => "none".to_owned(),
        (Some(version), None) => format!("version {version}"),
        (Some(version), Some(request)) => format!("version {version}, {request}"),
    };
    table.row([
        mib(memory.sizes.assigned),
        optional(memory.sizes.target),
        optional(memory.sizes.demand),
        optional(memory.sizes.available),
        mib(memory.sizes.ballooned),
        mib(memory.sizes.returned),
        mib(memory.sizes.added),
        mib(memory.sizes.resident),
        driver,
    ]);
    table
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}
