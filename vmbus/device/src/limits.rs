//! Every limit of the runtime, with its reason.

use std::time::Duration;

/// Most packets between two deliveries of replies.
pub(crate) const BATCH_PACKETS: usize = 64;

/// Rounds of one channel after which the next channel of a shared loop has its turn.
pub(crate) const TURN_ROUNDS: usize = 4;

/// Packets that may wait for space in the ring before requests are left unread. Together with the
/// handler's own limit of requests in flight, this bounds the memory that a guest can make a
/// channel use.
pub const MAX_WAITING: usize = 1024;

/// Bytes of payload that may wait there. A packet that is taken while there are fewer may add as
/// many as its ring holds.
pub const MAX_WAITING_BYTES: usize = 4 << 20;

/// The longest poll window: the cost of waking a thread on slow machines (13 to 54 us were
/// measured). A longer window would cost more than it could save.
pub const MAX_BUSY_POLL: Duration = Duration::from_micros(50);

/// How long a closing channel waits for requests in flight, so that they are completed and not only
/// ended: a guest that loses its device gets replies (spec storvsc section 5.2), and one that
/// closes with requests on storage that stalls is not held up.
pub(crate) const MAX_DRAIN: Duration = Duration::from_secs(2);

/// How long a pause waits for requests in flight, unless a user says otherwise: more than sound
/// storage takes for a full queue.
pub const MAX_PAUSE: Duration = Duration::from_secs(10);

/// Bounds of the shortest moderation window, which is the cost of a wake-up on this machine (see
/// `moderation`). A shorter sleep costs more than it gives; the upper bound keeps a measurement on
/// a busy machine harmless.
pub(crate) const MIN_MODERATION: Duration = Duration::from_micros(5);
/// See [`MIN_MODERATION`].
pub(crate) const MAX_MODERATION: Duration = Duration::from_micros(125);

/// How often that window doubles at most, less once: no interrupt is delayed by more than 2 ms,
/// nor, where a wake-up takes 10 us, by more than 160 us.
pub(crate) const MAX_MODERATION_STEPS: u32 = 5;

/// Packets after which the guest is interrupted however long the window is: 11 KiB of a ring of
/// completions, which usually has 124.
pub(crate) const MAX_PENDING: usize = 128;
