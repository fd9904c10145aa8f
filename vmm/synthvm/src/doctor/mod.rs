//! What this host offers, what a missing piece costs, and what to do about it.
//!
//! [`probe`] asks the host, [`Report::judge`] draws the conclusions (and is tested without a host),
//! [`render`] writes the table.

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

/// Everything that was looked at, and the verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whether unmodified Linux and Windows kernels can run here with their VMBus drivers.
    pub stock_guests: bool,
    /// Version of the host's kernel.
    pub kernel: String,
    /// The device node that was asked.
    pub kvm: String,
    /// Each thing that was looked at, in the order of the table.
    pub checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Its part of the table.
    pub group: Group,
    /// Its name. Capabilities: as in the kernel's headers, without KVM_CAP_.
    pub name: String,
    /// A capability's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
    /// How it stands.
    pub state: State,
    /// What was found, for people.
    pub found: String,
    /// What it is for.
    pub purpose: String,
    /// What is lost without it; only when something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<String>,
    /// What to do; only when there is something to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// Parts of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// Whether KVM can be used at all.
    Access,
    /// KVM's Hyper-V support.
    HyperV,
    /// KVM's other capabilities.
    Machine,
    /// The host beside KVM.
    Host,
}

/// How a thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// As it should be.
    Ok,
    /// Guests run, but worse.
    Warn,
    /// Stock guests cannot run.
    Missing,
    /// Could not be looked at, because something before it is missing.
    Unknown,
}

/// Asks the host by its KVM device node and judges what it answers.
pub fn probe(kvm: &std::path::Path) -> Report {
    Report::judge(&Facts::gather(kvm))
}
