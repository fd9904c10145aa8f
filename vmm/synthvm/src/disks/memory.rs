//! Disks without an image: in the host's memory, or without storage.

use std::fs;
use std::sync::Arc;

use synthvm_block::{Backend, NullDisk, RamDisk};
use tracing::warn;

use super::DiskError;
use crate::config::ByteSize;

/// Creates a disk in the host's memory. The host allocates memory at the guest's first write to it
/// and frees it when the guest discards it. The disk can grow up to the size of the host's memory.
///
/// # Errors
/// The host has less than `size` bytes of memory, or cannot reserve them.
pub(super) fn ram(size: ByteSize) -> Result<Arc<dyn Backend>, DiskError> {
    let host = HostMemory::read();
    host.check(size)?;
    let limit = host.total.unwrap_or(0).max(size.bytes());
    let disk = RamDisk::growable(size.bytes(), limit)
        .map_err(|error| DiskError::Memory { size, error })?;
    Ok(Arc::new(disk))
}

/// Creates a disk that discards writes and reads as zero.
pub(super) fn null(size: ByteSize, read_only: bool) -> Arc<dyn Backend> {
    let disk = NullDisk::new(size.bytes()).reading_zeroes();
    Arc::new(if read_only { disk.read_only() } else { disk })
}

/// The host's memory in bytes; `None` if unknown.
#[derive(Debug, Clone, Copy)]
struct HostMemory {
    total: Option<u64>,
    available: Option<u64>,
}

impl HostMemory {
    fn read() -> HostMemory {
        HostMemory::parse(&fs::read_to_string("/proc/meminfo").unwrap_or_default())
    }

    /// Parses proc_meminfo(5): lines such as `MemTotal:  24611796 kB`.
    fn parse(text: &str) -> HostMemory {
        let bytes = |key: &str| {
            let rest = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
            let kib: u64 = rest.trim().strip_suffix(" kB")?.parse().ok()?;
            kib.checked_mul(1024)
        };
        HostMemory { total: bytes("MemTotal"), available: bytes("MemAvailable") }
    }

    /// Refuses a disk that is larger than the host's memory. A disk larger than the available
    /// memory only gets a warning, as most disks are never full.
    fn check(self, size: ByteSize) -> Result<(), DiskError> {
        if let Some(total) = self.total.filter(|total| size.bytes() > *total) {
            return Err(DiskError::HostMemory { size, total: ByteSize::from_bytes(total) });
        }
        if let Some(available) = self.available.filter(|available| size.bytes() > *available) {
            let available = ByteSize::from_bytes(available);
            warn!(%size, %available, "a disk in memory is larger than what this host has free");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "MemTotal:           2048 kB\nMemFree:      1 kB\nMemAvailable:    1024 kB\n";

    #[test]
    fn test_null_disk_reads_as_zero() {
        let geometry = null(ByteSize::from_mib(1), false).geometry();
        // Only a disk that reads as zero may promise zeroes after a discard.
        assert_eq!(geometry.discard.map(|discard| discard.zeroes), Some(true));
    }

    #[test]
    fn test_host_memory_is_read_in_bytes() {
        let host = HostMemory::parse(TEXT);
        assert_eq!((host.total, host.available), (Some(2 << 20), Some(1 << 20)));
        let none = HostMemory::parse("MemTotal: x kB\n");
        assert_eq!((none.total, none.available), (None, None));
    }

    #[test]
    fn test_ram_disk_as_large_as_the_host_passes_and_one_byte_more_is_refused() {
        let host = HostMemory::parse(TEXT);
        assert!(
            host.check(ByteSize::from_bytes(2 << 20)).is_ok(),
            "more than is free is only a warning"
        );
        let error = host.check(ByteSize::from_bytes((2 << 20) + 1)).unwrap_err().to_string();
        assert!(error.contains("2097153") && error.contains("2M"), "{error}");
        assert!(
            HostMemory { total: None, available: None }.check(ByteSize::from_mib(1 << 20)).is_ok()
        );
    }
}
