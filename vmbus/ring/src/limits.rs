//! The ring's limits, each with its reason and a test one past it.

/// Fewest pages of one ring: its control page and one page of data.
pub const MIN_RING_PAGES: usize = 2;

/// Most pages of one ring: as many as one guest buffer can name (page positions have 16 bits).
pub const MAX_RING_PAGES: usize = vmbus_protocol::limits::MAX_BUFFER_PAGES;

/// Most runs of pages that a mirrored ring may have: each costs two mappings of the process, at
/// some 2 us each to make. All together are bounded by
/// [`vmbus_protocol::limits::MAX_STITCHED_MAPPINGS`].
pub const MAX_MIRROR_RUNS: usize = 16;

/// Largest packet without its trailer: its length field counts 8-byte units in 16 bits (vmbus-core
/// 6.2).
pub const MAX_PACKET_BYTES: u32 = 0xFFFF * 8;

/// What a Linux guest reads of one packet of a default channel; a longer one breaks its ring for
/// ever (vmbus-core 7.4).
pub const LINUX_DEFAULT_PACKET_BYTES: u32 = 4096;
/// As [`LINUX_DEFAULT_PACKET_BYTES`], on a storage channel.
pub const LINUX_STORAGE_PACKET_BYTES: u32 = 80;
/// As [`LINUX_DEFAULT_PACKET_BYTES`], on a network channel.
pub const LINUX_NETWORK_PACKET_BYTES: u32 = 4624;
/// As [`LINUX_DEFAULT_PACKET_BYTES`], on a hypervisor socket.
pub const LINUX_SOCKET_PACKET_BYTES: u32 = 16_416;
/// As [`LINUX_DEFAULT_PACKET_BYTES`], on the key-value channel.
pub const LINUX_KVP_PACKET_BYTES: u32 = 16_384;
/// As [`LINUX_DEFAULT_PACKET_BYTES`], on the snapshot, file copy and dynamic memory channels.
pub const LINUX_SERVICE_PACKET_BYTES: u32 = 8192;
