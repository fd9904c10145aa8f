//! The services' part of the machine's report, and the guest's status.

use serde::{Deserialize, Serialize};
use synthvm_services::protocol::ServiceKind;
use synthvm_services::protocol::heartbeat::ApplicationState;
use synthvm_services::protocol::kvp::Pair;
use synthvm_services::{CopyProgress, Health, ServiceCounters, ServiceState, Services};

/// The services of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ServicesReport {
    /// Whether the guest is alive.
    pub heartbeat: HealthName,
    /// Each offered service.
    pub services: Vec<ServiceReport>,
}

/// Whether the guest is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HealthName {
    /// The guest's driver has not connected, or the machine does not offer the service.
    #[default]
    Unknown,
    /// The guest answers, and its applications report nothing.
    Alive,
    /// The guest answers, and its applications are healthy.
    Healthy,
    /// The guest answers, and an application is in a critical state.
    Critical,
    /// The guest answers, and an application has stopped.
    Stopped,
    /// The guest does not answer.
    Lost,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceReport {
    /// The service.
    pub name: ServiceKind,
    /// The state of its channel.
    pub state: StateName,
    /// The version of the messages, for example "3.2".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Requests to the guest.
    #[serde(default)]
    pub requests: u64,
    /// Responses to them.
    #[serde(default)]
    pub responses: u64,
    /// Requests that the guest did not answer in time.
    #[serde(default)]
    pub timeouts: u64,
    /// Responses after the timeout.
    #[serde(default)]
    pub late: u64,
    /// Packets of the guest that were ignored.
    #[serde(default)]
    pub rejected: u64,
}

/// The state of a service's channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateName {
    /// The guest has no driver, or has stopped it.
    NoDriver,
    /// The guest's driver has not connected yet; for some services its daemon must run.
    Connecting,
    /// The guest answers requests.
    Ready,
    /// The guest does not answer requests.
    Unresponsive,
    /// The guest's driver supports no version that SynthVM does.
    Disabled,
}

/// The status of a guest, as its services see it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestStatus {
    /// Whether the guest is alive.
    pub heartbeat: HealthName,
    /// Whether the guest's file systems are frozen, or may be.
    pub frozen: bool,
    /// Each offered service.
    pub services: Vec<ServiceReport>,
    /// Facts that the guest's driver or daemon reports: names, versions, addresses.
    pub facts: Vec<Pair>,
}

/// A copy to the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyReport {
    /// Bytes of the file.
    pub size: u64,
    /// Bytes that the guest has written.
    pub sent: u64,
    /// Whether the copy has ended.
    pub ended: bool,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl CopyReport {
    pub(super) fn new(progress: &CopyProgress) -> Self {
        let result = progress.result();
        Self {
            size: progress.size(),
            sent: progress.sent(),
            ended: result.is_some(),
            error: result.and_then(Result::err).map(|error| error.to_string()),
        }
    }
}

impl GuestStatus {
    /// Returns whether the guest can be asked for its facts.
    pub(super) fn has_facts(&self) -> bool {
        let is_kvp = |one: &&ServiceReport| one.name == ServiceKind::Kvp;
        self.services.iter().find(is_kvp).is_some_and(|kvp| kvp.state == StateName::Ready)
    }

    pub(super) fn new(services: &Services) -> Self {
        let frozen = services.is_frozen();
        let ServicesReport { heartbeat, services } = ServicesReport::new(services);
        Self { heartbeat, frozen, services, facts: Vec::new() }
    }
}

impl ServicesReport {
    pub(super) fn new(services: &Services) -> Self {
        Self {
            heartbeat: services.health().into(),
            services: services.reports().iter().map(ServiceReport::new).collect(),
        }
    }
}

impl ServiceReport {
    fn new(report: &synthvm_services::ServiceReport) -> Self {
        let (state, agreed) = match report.state {
            ServiceState::Closed => (StateName::NoDriver, None),
            ServiceState::Negotiating => (StateName::Connecting, None),
            ServiceState::Ready(agreed) => (StateName::Ready, Some(agreed)),
            ServiceState::Unresponsive(agreed) => (StateName::Unresponsive, Some(agreed)),
            ServiceState::Disabled => (StateName::Disabled, None),
        };
        let ServiceCounters { requests, responses, timeouts, late, rejected, .. } = report.counters;
        let version = agreed.map(|agreed| agreed.message.to_string());
        Self { name: report.kind, state, version, requests, responses, timeouts, late, rejected }
    }
}

impl StateName {
    /// Returns the name for people.
    pub fn text(self) -> &'static str {
        match self {
            Self::NoDriver => "no driver",
            Self::Connecting => "connecting",
            Self::Ready => "ready",
            Self::Unresponsive => "no answer",
            Self::Disabled => "disabled",
        }
    }
}

impl From<Health> for HealthName {
    fn from(health: Health) -> Self {
        match health {
            Health::NoDriver => Self::Unknown,
            Health::Alive(ApplicationState::Unknown) => Self::Alive,
            Health::Alive(ApplicationState::Healthy) => Self::Healthy,
            Health::Alive(ApplicationState::Critical) => Self::Critical,
            Health::Alive(ApplicationState::Stopped) => Self::Stopped,
            Health::Lost => Self::Lost,
        }
    }
}

impl HealthName {
    /// Returns the name for people.
    pub fn text(self) -> &'static str {
        match self {
            Self::Unknown => "unknown: the guest has no driver",
            Self::Alive => "alive",
            Self::Healthy => "alive, applications healthy",
            Self::Critical => "alive, an application is critical",
            Self::Stopped => "alive, an application has stopped",
            Self::Lost => "lost: the guest does not answer",
        }
    }
}
