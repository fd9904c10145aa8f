//! Every limit of a worker, with its reason.

use std::time::Duration;

use crate::protocol::MAX_TRANSFER;

/// Most packets between two deliveries of completions.
pub(super) const BATCH_PACKETS: usize = 64;

/// No more packets are taken into a batch that moves this much: its first completion would wait for all of it.
pub(super) const BATCH_BYTES: u32 = MAX_TRANSFER;

/// Longest that a worker looks for more before it sleeps: what waking a thread costs at worst (13 to 54 us were measured). Longer would
/// cost more than it could save.
pub(crate) const MAX_POLL: Duration = Duration::from_micros(50);

/// Longest that a worker whose channel closes waits for requests in flight, so that they are completed and not only ended: a guest that
/// loses its controller gets answers (spec storvsc section 5.2), and one that closes with requests on a medium that stalls is not held up.
pub(super) const MAX_DRAIN: Duration = Duration::from_secs(2);

/// Longest that a pause waits for requests in flight, unless a user says otherwise: more than a sound medium takes for a full queue.
pub(crate) const MAX_PAUSE: Duration = Duration::from_secs(10);

/// Most jobs of one channel. Guests rarely send even one; more are asked to come again (TASK SET FULL).
pub(super) const MAX_JOBS: usize = 16;

/// Most GET LBA STATUS of one channel that wait for their disks. Guests send one at a time; more are
/// asked to come again (TASK SET FULL). Bounds the questions that pile up at an image that blocks.
pub(super) const MAX_QUERIES: usize = 16;

/// Most parts of one job in flight.
pub(super) const MAX_PARTS: usize = 4;

/// Bytes of a part that goes through memory of ours: with the above, 8 MiB for a channel at the worst.
pub(super) const CHUNK: u64 = 128 << 10;

/// The shortest time for which an interrupt is held back, between these bounds: what waking a thread costs here (see `pacer`). Sleeping for
/// less costs more than it gives; the upper bound keeps a measurement on a busy machine from meaning anything.
pub(super) const MIN_PACE: Duration = Duration::from_micros(5);
pub(super) const MAX_PACE: Duration = Duration::from_micros(125);

/// How often that time doubles at most, less once: no interrupt is held back for longer than 2 ms, nor, where waking takes 10 us, than 160 us.
pub(super) const MAX_PACE_STEPS: u32 = 5;

/// So many completions are told at once, however long they could be held back: 11 KiB of a ring, which usually has 124.
pub(super) const MAX_HELD: usize = 128;
