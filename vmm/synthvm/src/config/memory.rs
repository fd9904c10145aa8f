//! Guest RAM.

use serde::{Deserialize, Serialize};

use super::ByteSize;

/// The minimum RAM. With less, no kernel with Hyper-V support can unpack itself.
pub const MIN_MEMORY: ByteSize = ByteSize::from_mib(16);

/// The maximum RAM: 42 bits of address. Every host CPU of the last ten years offers its guests
/// more.
pub const MAX_MEMORY: ByteSize = ByteSize::from_mib(4 << 20);

/// Guest RAM: `512M`, or a table of these keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MemoryConfig {
    /// [`MIN_MEMORY`] to [`MAX_MEMORY`], in whole MiB (in whole 2 MiB with `hugepages`).
    #[serde(default = "default_size")]
    pub size: ByteSize,
    /// Whether the host's 2 MiB hugepages back the RAM, instead of ordinary pages.
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
