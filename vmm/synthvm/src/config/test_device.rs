//! Devices for tests.

use serde::{Deserialize, Serialize};

/// Devices that no guest needs: for those who work on the bus or on a guest's driver for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TestDevice {
    /// The device of `docs/writing-a-backend.md`: answers each packet with itself.
    Echo,
}
