//! The doctor: the features of this host, the costs of missing features, and advice.
//!
//! [`probe`] queries the host, [`Report::judge`] draws the conclusions (and is tested without a
//! host), [`render`] writes the table.

mod capabilities;
mod facts;
mod judge;
mod render;
mod require;

use serde::{Deserialize, Serialize};

pub use capabilities::{CAPABILITIES, Capability, Need};
pub use facts::{Access, Facts, Hugepages};
pub use render::{Look, render};
pub use require::{HostError, require};

/// The result of all checks, and the verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whether unmodified Linux and Windows kernels can run here with their VMBus drivers.
    pub stock_guests: bool,
    /// Version of the host's kernel.
    pub kernel: String,
    /// The device node that was checked.
    pub kvm: String,
    /// The checks, in the order of the table.
    pub checks: Vec<Check>,
}

/// A check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The part of the table.
    pub group: Group,
    /// The name. For a capability: the name in the kernel's headers, without KVM_CAP_.
    pub name: String,
    /// The number of a capability.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
    /// The result.
    pub state: State,
    /// A description of the result, for people.
    pub found: String,
    /// The purpose of the checked feature.
    pub purpose: String,
    /// The effect of a missing feature; `None` if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<String>,
    /// A remedy; `None` if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// Parts of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// Access to KVM.
    Access,
    /// KVM's Hyper-V support.
    HyperV,
    /// KVM's other capabilities.
    Machine,
    /// Parts of the host other than KVM.
    Host,
}

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// No problem.
    Ok,
    /// Guests run, but with a disadvantage.
    Warn,
    /// Stock guests cannot run.
    Missing,
    /// Could not be checked, because an earlier requirement is missing.
    Unknown,
}

/// Queries the host through its KVM device node and judges the result.
pub fn probe(kvm: &std::path::Path) -> Report {
    Report::judge(&Facts::gather(kvm))
}
