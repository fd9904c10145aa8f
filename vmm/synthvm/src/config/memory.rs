//! Guest RAM.

use serde::{Deserialize, Serialize};

use super::ByteSize;

/// The least RAM a machine can have. Below it no kernel that knows Hyper-V unpacks itself.
pub const MIN_MEMORY: ByteSize = ByteSize::from_mib(16);

/// The most RAM a machine can have: what 42 bits address, less than every host CPU of the last ten
/// years offers its guests.
pub const MAX_MEMORY: ByteSize = ByteSize::from_mib(4 << 20);

/// Guest RAM: `512M`, or a table of these keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MemoryConfig {
    /// [`MIN_MEMORY`] to [`MAX_MEMORY`], in whole MiB (in whole 2 MiB with `hugepages`).
    #[serde(default = "default_size")]
    pub size: ByteSize,
    /// Back the RAM with the host's 2 MiB hugepages instead of ordinary pages.
    #[serde(default)]
    pub hugepages: bool,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        MemoryConfig { size: default_size(), hugepages: false }
    }
}

fn default_size() -> ByteSize {
    ByteSize::from_mib(1024)
}
