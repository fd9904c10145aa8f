//! The ring's limits, each with its reason and a test one past it.

/// Fewest pages of one ring: its control page and one page of data.
pub const MIN_RING_PAGES: usize = 2;

/// Most pages of one ring: the limit of one guest buffer (page positions have 16 bits).
pub const MAX_RING_PAGES: usize = vmbus_protocol::limits::MAX_BUFFER_PAGES;

/// Most runs of pages that a mirrored ring may have. Each costs two mappings of the process, at
/// some 2 us each. The limit for all of them is [`vmbus_protocol::limits::MAX_STITCHED_MAPPINGS`].
pub const MAX_MIRROR_RUNS: usize = 16;

/// Largest packet without its trailer: its length field counts 8-byte units in 16 bits (vmbus-core
/// 6.2).
pub const MAX_PACKET_BYTES: u32 = 0xFFFF * 8;

/// Longest packet that a Linux guest can read on a default channel. A longer one breaks its ring
/// permanently (vmbus-core 7.4).
pub const LINUX_DEFAULT_PACKET_BYTES: u32 = 4096;
/// The same limit on a storage channel: see [`LINUX_DEFAULT_PACKET_BYTES`].
pub const LINUX_STORAGE_PACKET_BYTES: u32 = 80;
/// The same limit on a network channel: see [`LINUX_DEFAULT_PACKET_BYTES`].
pub const LINUX_NETWORK_PACKET_BYTES: u32 = 4624;
/// The same limit on a hypervisor socket: see [`LINUX_DEFAULT_PACKET_BYTES`].
pub const LINUX_SOCKET_PACKET_BYTES: u32 = 16_416;
/// The same limit on the key-value channel: see [`LINUX_DEFAULT_PACKET_BYTES`].
pub const LINUX_KVP_PACKET_BYTES: u32 = 16_384;
/// The same limit on the snapshot, file copy and dynamic memory channels: see
/// [`LINUX_DEFAULT_PACKET_BYTES`].
pub const LINUX_SERVICE_PACKET_BYTES: u32 = 8192;
