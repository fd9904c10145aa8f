//! Devices for tests.

use serde::{Deserialize, Serialize};

/// Devices for tests of the bus or of a guest's driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TestDevice {
    /// The device of `docs/writing-a-backend.md`, which returns each packet unchanged.
    Echo,
}
