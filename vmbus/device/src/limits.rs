//! The limits of the runtime, with their reasons.

use std::time::Duration;

/// Maximum number of packets between two deliveries of replies.
pub(crate) const BATCH_PACKETS: usize = 64;

/// Rounds of one channel after which the next channel of a shared loop has its turn.
pub(crate) const TURN_ROUNDS: usize = 4;

/// Maximum number of packets that wait for space in the ring. At this limit the worker stops
/// reading requests. Together with the handler's own limit of requests in flight, this bounds the
/// memory that a guest can make a channel use.
pub const MAX_WAITING: usize = 1024;

/// Maximum bytes of payload that wait for space. A packet taken below the limit may add as many
/// bytes as its ring holds.
pub const MAX_WAITING_BYTES: usize = 4 << 20;

/// Maximum poll window: the cost of waking a thread on slow machines (13 to 54 us were measured). A
/// longer window would cost more than it could save.
pub const MAX_BUSY_POLL: Duration = Duration::from_micros(50);

/// Time that a closing channel waits for requests in flight. A guest that loses its device gets
/// real completions (spec storvsc section 5.2), and a stalled backend does not block a close.
pub(crate) const MAX_DRAIN: Duration = Duration::from_secs(2);

/// Default timeout of a pause for requests in flight: more than healthy storage takes for a full
/// queue.
pub const MAX_PAUSE: Duration = Duration::from_secs(10);

/// Minimum of the shortest moderation window, which is the cost of a wake-up on this machine (see
/// `moderation`). A shorter sleep costs more than it saves.
pub(crate) const MIN_MODERATION: Duration = Duration::from_micros(5);
/// Maximum of the shortest moderation window. It limits the effect of a measurement on a busy
/// machine.
pub(crate) const MAX_MODERATION: Duration = Duration::from_micros(125);

/// Number of levels of the moderation window; each doubles the one before. No interrupt is delayed
/// by more than 2 ms, or by more than 160 us where a wake-up takes 10 us.
pub(crate) const MAX_MODERATION_STEPS: u32 = 5;

/// Number of packets after which the guest is interrupted within the window: 11 KiB of a ring of
/// completions, which usually has 124 KiB.
pub(crate) const MAX_PENDING: usize = 128;

/// Stack of a worker's thread in bytes. It does not recurse and keeps its buffers on the heap.
pub(crate) const THREAD_STACK: usize = 256 << 10;
