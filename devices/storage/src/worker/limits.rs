//! Every limit of a worker, with its reason.

use std::time::Duration;

use crate::storvsp::MAX_TRANSFER;

/// Most packets between two deliveries of completions.
pub(super) const BATCH_PACKETS: usize = 64;

/// No more packets are taken into a batch that moves this much: its first completion would wait for all of it.
pub(super) const BATCH_BYTES: u32 = MAX_TRANSFER;

/// Longest that a worker looks for more before it sleeps: what waking a thread costs at worst (13 to 54 us were measured). Longer would
/// cost more than it could save.
pub(crate) const MAX_POLL: Duration = Duration::from_micros(50);
