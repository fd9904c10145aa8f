//! Sizes and limits of the network protocol, each with its reason.

/// Bytes of an Ethernet header without a VLAN tag, and of the shortest frame.
pub const ETHERNET_HEADER: u32 = 14;

/// Bytes of a VLAN tag. A guest may send a tagged frame of the maximum length plus this.
pub const VLAN_TAG: u32 = 4;

/// Longest frame, in bytes with the Ethernet header, unless the guest configures another.
pub const DEFAULT_MAX_FRAME: u32 = 1514;

/// Longest frame that a guest may configure, in bytes with the Ethernet header.
pub const LARGEST_MAX_FRAME: u32 = 9216;

/// Longest frame of a segmentation request, in bytes: the largest IP packet and a tagged header.
pub const MAX_SEGMENTED_FRAME: u32 = 65_535 + ETHERNET_HEADER + VLAN_TAG;

/// Longest frame for segmentation that the capabilities announce, in bytes. The value of Hyper-V.
pub const ADVERTISED_SEGMENTED_FRAME: u32 = 0xF53C;

/// Bytes of one section of the send buffer.
pub const SECTION_SIZE: u32 = 6144;

/// Most RNDIS packets in one message of the guest; the number that INITIALIZE_CMPLT announces.
pub const MAX_PACKETS_PER_MESSAGE: u32 = 8;

/// Alignment of RNDIS packets within a message, as a power of two: 8 bytes.
pub const PACKET_ALIGNMENT_SHIFT: u32 = 3;

/// Most bytes of a packet that are copied and parsed: the RNDIS header and the per-packet
/// information. With one item of each known kind they take 108 bytes.
pub const HEADER_COPY: u32 = 256;

/// Bytes that are copied first: enough for the packets of all known guests.
pub const SHORT_HEADER_COPY: u32 = 112;

/// Offset of the frame within a sub-allocation of the receive buffer, in bytes. The RNDIS header
/// is in front of it.
pub const FRAME_OFFSET: u32 = 256;

/// Longest coalesced frame, in bytes: the largest IP packet and a tagged header.
pub const MAX_COALESCED_FRAME: u32 = 65_535 + ETHERNET_HEADER + VLAN_TAG;

/// Most sub-allocations of a coalesced frame: each is an RNDIS message of its own, with which a
/// guest spends as much time as with a frame.
pub const COALESCED_PARTS: u32 = 8;

/// Fewest sub-allocations of a receive buffer that is divided for coalesced frames: a batch of
/// frames and the longest coalesced one for each of 7 channels.
pub const MIN_COALESCED_SUB_ALLOCATIONS: u32 = 512;

/// Bytes at the end of each sub-allocation that hold no data: newer Windows guests overwrite them.
pub const SUB_ALLOCATION_TRAILER: u32 = 36;

/// Sub-allocations for control messages only, so that frames cannot starve their answers.
pub const CONTROL_SUB_ALLOCATIONS: u32 = 16;

/// Most sub-allocations of a receive buffer. The largest buffer of Linux (31 MiB) has 18,000.
pub const MAX_SUB_ALLOCATIONS: u32 = 1 << 16;

/// Most ranges of a packet to the guest: the limit of Windows, below the 562 of Linux.
pub const MAX_RANGES: usize = 375;

/// Most ranges of a packet to a guest with NDIS 5.
pub const MAX_RANGES_NDIS_5: usize = 8;

/// Longest packet to the guest, in bytes with its headers: Linux drops longer ones.
pub const MAX_PACKET_TO_GUEST: usize = 4624;

/// Most channels of one network card, the primary channel included: the limit of Linux.
pub const MAX_CHANNELS: u16 = 64;

/// Entries of the RSS indirection table. DPDK expects 128 even of a card with one queue.
pub const INDIRECTION_ENTRIES: usize = 128;

/// Entries of the guest's send indirection table, a constant of the protocol.
pub const SEND_TABLE_ENTRIES: usize = 16;

/// Longest control message of a guest, in bytes. Linux sends at most 1,100 (RSS parameters).
pub const MAX_CONTROL_MESSAGE: usize = 4096;

/// Most multicast addresses in the guest's list.
pub const MAX_MULTICAST: usize = 32;
