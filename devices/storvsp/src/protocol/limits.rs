//! Every limit of the storage protocol, with its reason.

/// Most bytes that one request moves; told to the guest in QUERY_PROPERTIES. A multiple of 4096
/// (Linux rounds down). 1 MiB keeps large sequential I/O in one request, and its page list (257
/// entries) within one sixtieth of the smallest common ring.
pub const MAX_TRANSFER: u32 = 1 << 20;

/// Most LUNs of one controller: as many as Hyper-V offers, so guests expect no more.
pub const MAX_LUNS: usize = 64;

/// Longest protocol packet. A larger one makes Linux 6.1 and later lose its place in the ring
/// (vmbus-core section 7.4).
pub const MAX_PACKET: usize = 64;

/// Packets of the versions before 5.1.
pub(super) const V1_PACKET: usize = 48;

/// Operation, flags and status: the header of every packet.
pub(super) const HEADER: usize = 12;
