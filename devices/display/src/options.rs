//! Options of a server.

use std::time::Duration;

/// Maximum number of viewers, unless [`DisplayOptions`] has another.
pub const MAX_VIEWERS: usize = 32;

/// Options of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DisplayOptions {
    /// The name of the desktop.
    pub name: String,
    /// Maximum number of viewers. The connection of one more is closed.
    pub max_viewers: usize,
    /// A viewer that has not logged in after this time is dropped.
    pub login_timeout: Duration,
    /// A viewer that takes no bytes for this time, while some wait for it, is dropped.
    pub stall_timeout: Duration,
}

impl Default for DisplayOptions {
    fn default() -> Self {
        Self {
            name: "SynthVM".to_owned(),
            max_viewers: MAX_VIEWERS,
            login_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(30),
        }
    }
}
