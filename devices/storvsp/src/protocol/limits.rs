//! The limits of the storage protocol, with their reasons.

/// Maximum bytes that one request moves, as QUERY_PROPERTIES reports. A multiple of 4096 (Linux
/// rounds down). 1 MiB keeps large sequential I/O in one request, and its page list (257 entries)
/// within one sixtieth of the smallest common ring.
pub const MAX_TRANSFER: u32 = 1 << 20;

/// Maximum number of LUNs of one controller, as on Hyper-V.
pub const MAX_LUNS: usize = 64;
