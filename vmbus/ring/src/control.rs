//! The control page and the signalling protocol on it (vmbus-core 6.1 and 7).
//!
//! Three hand-shakes lie here, each a pair of the shape "write mine, full barrier, read yours".
//! Whichever side comes second sees the other's write, so a wake-up can be sent twice but never
//! lost:
//!
//! | who publishes | then reads | the other side publishes | then reads |
//! |---|---|---|---|
//! | producer: write index | interrupt mask, then read index | consumer: mask = 0 | write index |
//! | producer: write index | interrupt mask, then read index | consumer: read index (before mask = 0) | write index |
//! | consumer: read index | pending send size, then write index | producer: pending send size | read index |
//!
//! The code is generic over the word type, so that the model checker runs exactly what the ring
//! runs.

use std::sync::atomic::{AtomicU32, Ordering};

/// Feature bit 0: this end understands `pending_send_size`.
pub(crate) const FEATURE_PENDING_SEND_SIZE: u32 = 1;

/// One shared word of the control page.
pub(crate) trait Word {
    /// Reads the word once; no later access of this thread happens before it.
    fn read(&self) -> u32;
    /// Writes the word after everything that this thread wrote before.
    fn set(&self, value: u32);
    /// As [`Word::set`], then a full barrier: reads that follow see what the peer wrote before its
    /// own barrier, or the peer, after its barrier, sees this value.
    fn publish(&self, value: u32);
}

/// Sequentially consistent accesses are the full barrier: on x86 a locked exchange, cheaper than a
/// store and a fence; on Arm a store-release that no load-acquire may pass. Hence each `read` after
/// a `publish` must be sequentially consistent as well, and is.
impl Word for AtomicU32 {
    #[inline]
    fn read(&self) -> u32 {
        self.load(Ordering::SeqCst)
    }

    #[inline]
    fn set(&self, value: u32) {
        self.store(value, Ordering::Release);
    }

    #[inline]
    fn publish(&self, value: u32) {
        self.store(value, Ordering::SeqCst);
    }
}

/// The fields of a control page, as they lie in shared memory. All little-endian, as are all guests
/// and hosts of VMBus.
///
/// The guest may write any of it at any moment, so every field is a shared word, the reserved ones
/// too: a reference to this structure covers no plain memory.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct Control<W = AtomicU32> {
    /// Byte offset of the next byte to write. The producer's.
    pub(crate) write_index: W,
    /// Byte offset of the next byte to read. The consumer's.
    pub(crate) read_index: W,
    /// Not 0: the producer need not signal. The consumer's.
    pub(crate) interrupt_mask: W,
    /// Not 0: the producer waits until that many bytes are free. The producer's.
    pub(crate) pending_send_size: W,
    /// Real hosts keep statistics here: never read, never written.
    reserved: [W; 12],
    /// The features of both ends.
    pub(crate) feature_bits: W,
}

impl<W: Word> Control<W> {
    /// Producer: makes everything up to `to` visible. True when the consumer may sleep and must be
    /// signalled (vmbus-core 7.2); the second value is the consumer's index when it was looked
    /// at.
    ///
    /// The mask is read before the read index: a consumer that unmasks has published its read index
    /// before, so a mask of 0 comes with a read index at least that fresh.
    #[inline]
    pub(crate) fn publish_write(&self, from: u32, to: u32) -> (bool, Option<u32>) {
        self.write_index.publish(to);
        if self.interrupt_mask.read() != 0 {
            return (false, None);
        }
        let read = self.read_index.read();
        (read == from, Some(read))
    }

    /// Consumer: gives the space up to `to` back. Returns the producer's pending send size, 0 when
    /// it does not wait.
    #[inline]
    pub(crate) fn publish_read(&self, to: u32) -> u32 {
        self.read_index.publish(to);
        self.pending_send_size.read()
    }

    /// Consumer: asks not to be signalled while it drains. Takes effect some time later; harmless
    /// when it does not.
    #[inline]
    pub(crate) fn mask(&self) {
        self.interrupt_mask.set(1);
    }

    /// Consumer: asks to be signalled again. Returns the write index as of then: what it covers
    /// will not be signalled.
    #[inline]
    pub(crate) fn unmask(&self) -> u32 {
        self.interrupt_mask.publish(0);
        self.write_index.read()
    }

    /// Producer: asks to be signalled when space comes. Returns the read index as of then: what it
    /// covers will not be signalled.
    #[inline]
    pub(crate) fn ask_for_space(&self, pending: u32) -> u32 {
        self.pending_send_size.publish(pending);
        self.read_index.read()
    }
}

/// Consumer: whether giving back space, so that `before` bytes free became `now`, must wake a
/// producer that waits for `pending`.
///
/// Peers differ: some wait for `free > pending`, some for `free >= pending` with the low three bits
/// of `pending` ignored. The signal is due when either threshold is crossed; the other kind of peer
/// gets at most one signal too many for each wait. A wait for more than an empty ring can promise
/// counts as a wait for an empty ring (vmbus-core 7.3).
pub(crate) fn crosses(pending: u32, before: u32, now: u32, data_size: u32) -> bool {
    let pending = (pending & !7).min(data_size.wrapping_sub(8));
    before < now && before <= pending && now >= pending
}

/// Producer: the pending send size that wakes us when more than `needed` bytes are free, a multiple
/// of 8.
///
/// With all three low bits set, `free > pending` (Linux) and `free >= pending` both mean `free >
/// needed`, because free space comes in units of 8; a peer that drops the low bits and compares
/// with `>=` is early by one unit.
pub(crate) fn pending_for(needed: u32) -> u32 {
    needed | 7
}

#[cfg(all(test, loom))]
mod model;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_control_fields_lie_where_the_spec_says() {
        assert_eq!(std::mem::offset_of!(Control, write_index), 0);
        assert_eq!(std::mem::offset_of!(Control, read_index), 4);
        assert_eq!(std::mem::offset_of!(Control, interrupt_mask), 8);
        assert_eq!(std::mem::offset_of!(Control, pending_send_size), 12);
        assert_eq!(std::mem::offset_of!(Control, feature_bits), 64);
    }

    #[test]
    fn test_control_has_no_field_but_shared_words() {
        // With words of no size nothing is left: no field is a plain integer, which a guest must
        // not change under a reference.
        assert_eq!(size_of::<Control<()>>(), 0);
        assert_eq!(size_of::<Control>(), 68);
    }

    #[test]
    fn test_crosses_covers_strict_and_inclusive_thresholds() {
        for pending in 0..200_u32 {
            for before in (8..=256).step_by(8) {
                for now in (before..=256).step_by(8) {
                    let strict = before <= pending && now > pending;
                    let rounded = pending & !7;
                    let inclusive = before < rounded && now >= rounded;
                    if (strict || inclusive) && pending <= 248 {
                        assert!(crosses(pending, before, now, 256), "{pending} {before} {now}");
                    }
                    if now == before || before > pending || now < rounded {
                        assert!(!crosses(pending, before, now, 256), "{pending} {before} {now}");
                    }
                }
            }
        }
    }

    #[test]
    fn test_crosses_garbage_pending_is_clamped_to_an_empty_ring() {
        for pending in [u32::MAX, 4096, 4095, 4089] {
            assert!(crosses(pending, 8, 4096, 4096), "{pending:#x}");
            assert!(!crosses(pending, 8, 4080, 4096), "{pending:#x}");
        }
    }

    #[test]
    fn test_pending_for_wakes_a_strict_consumer_exactly_when_the_packet_fits() {
        for needed in (24..4088_u32).step_by(8) {
            let pending = pending_for(needed);
            for free in (0..=4096).step_by(8) {
                assert_eq!(free > pending, free > needed);
                assert_eq!(free >= pending, free > needed);
            }
        }
    }
}
