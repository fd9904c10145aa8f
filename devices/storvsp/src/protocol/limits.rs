//! The limits of the storage protocol, with their reasons.

/// Maximum bytes that one request moves, as QUERY_PROPERTIES reports. A multiple of 4096 (Linux
/// rounds down). 1 MiB keeps large sequential I/O in one request, and its page list (257 entries)
/// within one sixtieth of the smallest common ring.
pub const MAX_TRANSFER: u32 = 1 << 20;

/// Maximum number of LUNs of one controller, as on Hyper-V.
pub const MAX_LUNS: usize = 64;

/// Maximum bytes of a protocol packet. A larger one makes Linux 6.1 and later lose its position in
/// the ring (vmbus-core section 7.4).
pub const MAX_PACKET: usize = 64;

/// Bytes of a packet in versions before 5.1.
pub(super) const V1_PACKET: usize = 48;

/// Bytes of a packet's header: operation, flags and status.
pub(super) const HEADER: usize = 12;
