//! Guest RAM, and its bounds with dynamic memory.

use serde::{Deserialize, Serialize};

use super::ByteSize;

/// The minimum RAM. With less, no kernel with Hyper-V support can unpack itself.
pub const MIN_MEMORY: ByteSize = ByteSize::from_mib(16);

/// The maximum RAM: 42 bits of address. Every host CPU of the last ten years offers its guests
/// more.
pub const MAX_MEMORY: ByteSize = ByteSize::from_mib(4 << 20);

/// The maximum of [`MemoryConfig::buffer`].
pub const MAX_BUFFER_PERCENT: u32 = 500;

/// The maximum of [`MemoryConfig::start_delay`]: a day.
pub const MAX_START_DELAY_SECONDS: u32 = 86_400;

/// Guest RAM: `512M`, or a table of these keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MemoryConfig {
    /// RAM at boot: [`MIN_MEMORY`] to [`MAX_MEMORY`], in whole MiB (in whole 2 MiB with
    /// `hugepages`).
    #[serde(default = "default_size")]
    pub size: ByteSize,
    /// Whether the host's 2 MiB hugepages back the RAM, instead of ordinary pages.
    #[serde(default)]
    pub hugepages: bool,
    /// Whether the machine has dynamic memory. Absent: it has if `min` or `max` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dynamic: Option<bool>,
    /// With dynamic memory, the guest keeps at least this much, in the same units. Absent: half of
    /// `size`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<ByteSize>,
    /// With dynamic memory, the guest never has more, in the same units. Absent: `size`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<ByteSize>,
    /// Memory beyond the guest's demand, in percent of the demand.
    #[serde(default = "default_buffer")]
    pub buffer: u32,
    /// Seconds after the start of the guest's driver in which the guest keeps its memory.
    #[serde(default = "default_start_delay")]
    pub start_delay: u32,
    /// With dynamic memory, whether the guest may report free pages, which the host takes at once.
    #[serde(default)]
    pub free_page_reporting: bool,
}

impl MemoryConfig {
    /// Returns whether the machine has dynamic memory.
    pub fn is_dynamic(&self) -> bool {
        self.dynamic.unwrap_or(self.min.is_some() || self.max.is_some())
    }

    /// Returns the least RAM with dynamic memory: whole MiB, or whole 2 MiB with hugepages.
    pub fn min(&self) -> ByteSize {
        let half = ByteSize::from_bytes((self.size.bytes() / 2) >> 21 << 21).max(MIN_MEMORY);
        self.min.unwrap_or(half)
    }

    /// Returns the most RAM with dynamic memory.
    pub fn max(&self) -> ByteSize {
        self.max.unwrap_or(self.size)
    }
}

impl Default for MemoryConfig {
    fn default() -> Self {
        MemoryConfig {
            size: default_size(),
            hugepages: false,
            dynamic: None,
            min: None,
            max: None,
            buffer: default_buffer(),
            start_delay: default_start_delay(),
            free_page_reporting: false,
        }
    }
}

fn default_size() -> ByteSize {
    ByteSize::from_mib(1024)
}

fn default_buffer() -> u32 {
    20
}

fn default_start_delay() -> u32 {
    50
}
