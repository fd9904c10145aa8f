//! Heartbeats. Source: docs/spec/integration-services.md, section 3.

use serde::{Deserialize, Serialize};

/// Bytes of a body: the sequence number and 32 reserved bytes.
const BODY: usize = 40;

/// The state that the guest's applications report. Linux reports none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ApplicationState {
    /// The guest reports none.
    #[default]
    Unknown,
    /// Healthy.
    Healthy,
    /// An application is in a critical state.
    Critical,
    /// The application has stopped.
    Stopped,
}

/// Returns the body of a request.
pub fn request(sequence: u64) -> Vec<u8> {
    let mut body = sequence.to_le_bytes().to_vec();
    body.resize(BODY, 0);
    body
}

/// Reads a response's sequence number and state. `None`: it is too short.
pub fn response(body: &[u8]) -> Option<(u64, ApplicationState)> {
    let (sequence, rest) = body.split_first_chunk()?;
    let state = match rest.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))? {
        1 => ApplicationState::Healthy,
        2 => ApplicationState::Critical,
        3 => ApplicationState::Stopped,
        _ => ApplicationState::Unknown,
    };
    Some((u64::from_le_bytes(*sequence), state))
}
