//! Every limit of a worker, with its reason.

use crate::protocol::MAX_TRANSFER;

/// No more packets are taken into a batch that moves this much: its first completion would wait for
/// all of it.
pub(super) const BATCH_BYTES: u32 = MAX_TRANSFER;

/// Most jobs of one channel. Guests rarely send even one; more are asked to come again (TASK SET
/// FULL).
pub(super) const MAX_JOBS: usize = 16;

/// Most GET LBA STATUS of one channel that wait for their disks. Guests send one at a time; more
/// are asked to come again (TASK SET FULL). Bounds the questions that pile up at an image that
/// blocks.
pub(super) const MAX_QUERIES: usize = 16;

/// Most parts of one job in flight.
pub(super) const MAX_PARTS: usize = 4;

/// Bytes of a part that goes through memory of ours: with the above, 8 MiB for a channel at the
/// worst.
pub(super) const CHUNK: u64 = 128 << 10;
