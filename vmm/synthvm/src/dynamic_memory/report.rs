//! Dynamic memory's part of the machine's report.

use serde::{Deserialize, Serialize};
use synthvm_dynamic_memory::{Counters, Sizes, Status};

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
    /// The sizes: fields of the report itself.
    #[serde(flatten)]
    pub sizes: Sizes,
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
            sizes: status.sizes,
            request: status.request.map(str::to_owned),
            report_age_ms: age,
            counters: status.counters,
        }
    }
}
