//! The error of a request to the guest.

use crate::protocol::{ServiceKind, Status, Version};

/// The reason why the guest did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// The machine does not offer the service.
    #[error(
        "the machine does not offer the service `{0}`; start it with --services {list}",
        list = offering(*.0)
    )]
    NotOffered(ServiceKind),
    /// The guest has not opened the channel.
    #[error("the guest has no driver for `{0}`{advice}", advice = driver(*.0))]
    NoDriver(ServiceKind),
    /// The guest has opened the channel, but has not agreed on a version.
    #[error("the guest's driver for `{0}` has not connected yet{advice}", advice = daemon(*.0))]
    NoDaemon(ServiceKind),
    /// Host and guest have no version in common, or the guest's choice was invalid.
    #[error("the guest's driver for `{0}` supports no version that SynthVM does")]
    NoCommonVersion(ServiceKind),
    /// The guest's driver is too old for the request.
    #[error("the guest's driver speaks version {spoken}, and this needs {needed}")]
    TooOld {
        /// The version on which host and guest have agreed.
        spoken: Version,
        /// The first version with the request.
        needed: Version,
    },
    /// The guest has not answered in time. A late answer has no effect.
    #[error("the guest has not answered `{0}` in time")]
    NoAnswer(ServiceKind),
    /// Too many requests have no answer, so no more are sent until the guest answers one.
    #[error("the guest does not answer `{0}`: earlier requests still wait for it")]
    Unresponsive(ServiceKind),
    /// Too many requests wait.
    #[error("too many requests wait for `{0}`; try again later")]
    Busy(ServiceKind),
    /// The guest answered with an error.
    #[error("the guest refused: {0}")]
    Refused(Status),
    /// The guest's answer was invalid.
    #[error("the guest's answer to `{0}` is invalid")]
    Invalid(ServiceKind),
    /// The guest has closed the channel, or has ended.
    #[error("the guest has closed `{0}`, or has ended")]
    Closed(ServiceKind),
    /// An argument is invalid; the guest was not asked.
    #[error("{0}")]
    Argument(String),
    /// The host's part failed, for example a file.
    #[error("{0}")]
    Host(String),
}

/// Returns the shortest value of `--services` that offers a service.
fn offering(kind: ServiceKind) -> &'static str {
    match kind {
        ServiceKind::Copy => "all",
        _ => "default",
    }
}

/// Returns advice about the driver.
fn driver(kind: ServiceKind) -> &'static str {
    match kind {
        ServiceKind::Copy => {
            " (Linux up to 6.9: hv_utils and hv_fcopy_daemon; later: hv_fcopy_uio_daemon)"
        }
        ServiceKind::Shutdown => {
            " (Linux: hv_utils), or has stopped it; `synthvm control SOCK power-button` needs none"
        }
        _ => " (Linux: hv_utils), or has stopped it",
    }
}

/// Returns advice about the guest's daemon.
fn daemon(kind: ServiceKind) -> &'static str {
    match kind {
        ServiceKind::Kvp => " (Linux: its daemon hv_kvp_daemon must run)",
        ServiceKind::Vss => " (Linux: its daemon hv_vss_daemon must run)",
        ServiceKind::Copy => " (Linux up to 6.9: its daemon hv_fcopy_daemon must run)",
        ServiceKind::Shutdown | ServiceKind::TimeSync | ServiceKind::Heartbeat => "",
    }
}
