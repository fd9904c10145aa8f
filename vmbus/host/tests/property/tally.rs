//! Counts the events of a run, to detect a degenerate generator.

use std::collections::BTreeMap;

use crate::common::Reply;

/// The number of events of each kind.
pub type Tally = BTreeMap<&'static str, u64>;

/// The events that a run of any length must have seen.
pub const MUST_HAPPEN: [&str; 23] = [
    "message",
    "ignored",
    "probe",
    "offer",
    "subchannel offer",
    "rescind",
    "all offers",
    "open result",
    "open failure",
    "created",
    "refused",
    "torndown",
    "torndown later",
    "connected",
    "not connected",
    "unloaded",
    "reserved closed",
    "tl result",
    "modified",
    "removed",
    "quiesced later",
    "fault",
    "mapped",
];

/// Returns the name for counting a reply. `in_message`: a message of the guest caused it, and not
/// an event of the host.
pub fn name_of(reply: &Reply, in_message: bool) -> &'static str {
    match reply {
        Reply::Offer { subchannel: 0, .. } => "offer",
        Reply::Offer { .. } => "subchannel offer",
        Reply::Rescind(_) => "rescind",
        Reply::AllOffers => "all offers",
        Reply::OpenResult { status: 0, .. } => "open result",
        Reply::OpenResult { .. } => "open failure",
        Reply::Created { status: 0, .. } => "created",
        Reply::Created { .. } => "refused",
        Reply::Torndown(_) if in_message => "torndown",
        Reply::Torndown(_) => "torndown later",
        Reply::Version { supported: 1, state: 0, .. } => "connected",
        Reply::Version { .. } => "not connected",
        Reply::Unloaded => "unloaded",
        Reply::ReservedClosed(_) => "reserved closed",
        Reply::TlResult { .. } => "tl result",
        Reply::Modified { .. } => "modified",
    }
}
