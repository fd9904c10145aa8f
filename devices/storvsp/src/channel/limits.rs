//! The limits of a worker, with their reasons.

use crate::protocol::MAX_TRANSFER;

/// Bytes after which a batch takes no more packets: the first completion of a batch waits for the
/// whole batch to be submitted.
pub(super) const BATCH_BYTES: u32 = MAX_TRANSFER;

/// Maximum number of compound commands of one channel. Guests rarely send even one; the device
/// answers further ones with TASK SET FULL.
pub(super) const MAX_JOBS: usize = 16;

/// Maximum number of pending GET LBA STATUS commands of one channel. Guests send one at a time; the
/// device answers further ones with TASK SET FULL. Bounds the queries that pile up at a backend
/// that blocks.
pub(super) const MAX_QUERIES: usize = 16;

/// Maximum number of subrequests of one compound command in flight.
pub(super) const MAX_PARTS: usize = 4;

/// Bytes of a subrequest through the device's own memory. With the limits above, a channel needs at
/// most 8 MiB.
pub(super) const CHUNK: u64 = 128 << 10;
