//! Every limit of the bus, with its reason. The same table stands in `docs/limits.md`; each has a
//! test at the limit and one past it.

/// Bytes of one page. The bus counts in 4 KiB, also for guests with larger pages (vmbus-core,
/// conventions).
pub const PAGE_SIZE: usize = 4096;

/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;

/// Largest channel message and largest SynIC message payload, in bytes (vmbus-core 2.1).
pub const MAX_MESSAGE_SIZE: usize = 240;

/// Pages that one GPADL of one range can name: `range_buflen` is 16 bits, 8 bytes go to the range
/// itself (vmbus-core 4.3).
pub const MAX_GPADL_PAGES: usize = 8190;

/// Ranges that one GPADL can have: each takes at least 16 of the 65,528 bytes that `range_buflen`
/// can say.
pub const MAX_GPADL_RANGES: usize = 4095;

/// Pages that one buffer (GPADL or the GPA-direct ranges of one packet) can name: page positions
/// are kept in 16 bits.
pub const MAX_BUFFER_PAGES: usize = 65_535;

/// Runs that a contiguous mapping of a part of a buffer may have: each is a mapping of the process
/// and takes some 2 us to make.
pub const MAX_CONTIGUOUS_RUNS: usize = 256;

/// Mappings that all mirrored rings and contiguous mappings of the process may use together: a
/// quarter of Linux's default `vm.max_map_count` (65,530).
pub const MAX_STITCHED_MAPPINGS: usize = 16_384;

/// Bytes that the GPA-direct ranges of one packet may describe: more than any guest sends, so that
/// one packet cannot pin a device for long.
pub const MAX_GPA_DIRECT_BYTES: u64 = 32 << 20;

/// Ranges that one GPA-direct packet may have: netvsc sends up to 32, storvsc one; a multi-range
/// MDL chain stays below this.
pub const MAX_GPA_DIRECT_RANGES: u32 = 512;

/// Channels of one VM, primaries and subchannels: event flags are 11 bits and flag 0 is never a
/// channel (vmbus-core 2.2).
pub const MAX_CHANNELS: usize = 2047;

/// Messages from the guest that may wait for the bus: past it HvPostMessage answers
/// INSUFFICIENT_BUFFERS and the guest tries again.
pub const MAX_INBOX_MESSAGES: usize = 512;

/// Messages that may wait for the guest to take them: all offers of a full bus twice over. Past it
/// HvPostMessage answers INSUFFICIENT_BUFFERS, so that a guest that asks and never listens costs no
/// more than these. INITIATE_CONTACT and UNLOAD are taken even then, in place of all that waits:
/// whoever posts them has not read it and never will.
pub const MAX_WAITING_MESSAGES: usize = 4096;

/// GPADLs of one channel, complete or not: the busiest real client (netvsc with subchannels) has 3
/// to 5; MDL clients a few hundred.
pub const MAX_GPADLS_PER_CHANNEL: usize = 1024;

/// GPADLs of one VM, complete or not.
pub const MAX_GPADLS_PER_VM: usize = 16_384;

/// GPADLs of one VM whose page list is still arriving: each guest CPU sends one at a time, so a few
/// are always enough.
pub const MAX_GPADLS_IN_PROGRESS: usize = 256;

/// Of them, those of one channel: one for each of 64 VPs, and a driver that never finishes its
/// lists leaves three quarters to the others.
pub const MAX_GPADLS_IN_PROGRESS_PER_CHANNEL: usize = 64;

/// Pages named by all GPADLs of one channel together: 4 GiB of shared memory, above what any known
/// client shares on one channel.
pub const MAX_GPADL_PAGES_PER_CHANNEL: usize = 1 << 20;

/// Pages named by all GPADLs of one VM together: 16 GiB of shared memory, and a bound of some 160
/// MiB on the host's own lists.
pub const MAX_GPADL_PAGES_PER_VM: usize = 1 << 22;

/// Subchannels of one primary channel: Windows and Linux ask for at most one channel a VP.
pub const MAX_SUBCHANNELS: u16 = 63;

/// User-defined bytes of an offer (vmbus-core 4.1).
pub const MAX_OFFER_USER_DATA: usize = 120;
