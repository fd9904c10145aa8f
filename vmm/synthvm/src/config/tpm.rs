//! The TPM.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::de;
use super::node::Bare;

/// The key of a bare value: `--tpm swtpm` is `--tpm backend=swtpm`.
pub(super) const BARE: Bare = Bare::key("backend");

/// A TPM 2.0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TpmConfig {
    /// The TPM behind the registers.
    pub backend: TpmBackend,
    /// The folder of the TPM's state, made if it does not exist. Absent: the state is lost when
    /// the machine ends.
    #[serde(
        default,
        deserialize_with = "de::optional_host_path",
        skip_serializing_if = "Option::is_none"
    )]
    pub state: Option<PathBuf>,
    /// The program. Absent: `swtpm`, searched for in `PATH`.
    #[serde(
        default,
        deserialize_with = "de::optional_host_path",
        skip_serializing_if = "Option::is_none"
    )]
    pub program: Option<PathBuf>,
    /// Whether the guest has the physical presence interface, if OVMF starts the machine.
    #[serde(default)]
    pub presence: bool,
}

/// A TPM behind the registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TpmBackend {
    /// The program swtpm, as a child process.
    Swtpm,
}
