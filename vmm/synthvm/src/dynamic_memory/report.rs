//! Dynamic memory's part of the machine's report.

use serde::{Deserialize, Serialize};
use synthvm_dynamic_memory::{Counters, Status};

/// Dynamic memory. Sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryReport {
    /// The protocol's version. `None`: the guest's driver has not connected.
    pub version: Option<String>,
    /// The least that the guest keeps.
    pub min: u64,
    /// RAM at boot.
    pub start: u64,
    /// The most that it can have.
    pub max: u64,
    /// RAM that it has: it booted with it or added it, and it is not in the balloon.
    pub assigned: u64,
    /// Memory that it has added since its start.
    pub added: u64,
    /// Memory in the balloon.
    pub ballooned: u64,
    /// Memory of the balloon that the host has back.
    pub returned: u64,
    /// The host's memory that the guest's RAM takes.
    pub resident: u64,
    /// Memory that the guest's programs were promised, with a floor that it needs itself. `None`:
    /// it has not reported yet.
    pub demand: Option<u64>,
    /// Memory that it can use without swapping. `None`: as above.
    pub available: Option<u64>,
    /// The size that it shall have now. `None`: as above.
    pub target: Option<u64>,
    /// The size that a user wants. `None`: the demand decides.
    pub wanted: Option<u64>,
    /// The request that it has not answered: balloon, unballoon or hot add.
    pub request: Option<String>,
    /// Milliseconds since its last report. `None`: as above.
    pub report_age_ms: Option<u64>,
    /// The counters.
    pub counters: Counters,
}

impl From<&Status> for MemoryReport {
    fn from(status: &Status) -> Self {
        let pages = |pages: u64| pages * super::PAGE;
        let age = status.report_age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        Self {
            version: status.version.map(|version| version.to_string()),
            min: pages(status.bounds.min),
            start: pages(status.bounds.start),
            max: pages(status.bounds.max),
            assigned: status.assigned,
            added: status.added,
            ballooned: status.ballooned,
            returned: status.returned,
            resident: status.resident,
            demand: status.demand,
            available: status.available,
            target: status.target,
            wanted: status.wanted,
            request: status.request.map(str::to_owned),
            report_age_ms: age,
            counters: status.counters,
        }
    }
}
