//! The control page and the signalling protocol on it (vmbus-core 6.1 and 7).
//!
//! This module has three handshakes, each a pair of the form "write mine, full barrier, read
//! yours". The second side always sees the first side's write, so a wake-up can be sent twice but
//! never lost:
//!
//! | publisher | then reads | the other side publishes | then reads |
//! |---|---|---|---|
//! | producer: write index | mask, then read index | consumer: mask = 0 | write index |
//! | producer: write index | mask, then read index | consumer: read index, mask = 0 | write index |
//! | consumer: read index | pending size, then write index | producer: pending size | read index |
//!
//! The mask is the interrupt mask, and the pending size is the pending send size.
//!
//! The code is generic over the word type, so that the model checker runs the same code as the
//! ring.

use core::sync::atomic::{AtomicU32, Ordering};

/// Feature bit 0: this end supports `pending_send_size`.
pub(crate) const FEATURE_PENDING_SEND_SIZE: u32 = 1;

/// One shared word of the control page.
pub(crate) trait Word {
    /// Reads the word once. No later access of this thread happens before it.
    fn read(&self) -> u32;
    /// Writes the word after all earlier writes of this thread.
    fn set(&self, value: u32);
    /// Writes the word like [`Word::set`], then executes a full barrier. Either later reads see the
    /// peer's writes before its own barrier, or the peer sees this value after its barrier.
    fn publish(&self, value: u32);
}

/// Sequentially consistent accesses are the full barrier. On x86 they are a locked exchange, which
/// is cheaper than a store and a fence; on Arm a store-release that no load-acquire may pass.
/// Therefore each `read` after a `publish` must be sequentially consistent as well, and is.
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

/// The fields of a control page in shared memory. All are little-endian, like all guests and hosts
/// of VMBus.
///
/// The guest may write any of them at any moment, so every field is a shared word, including the
/// reserved ones: a reference to this structure covers no plain memory.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct Control<W = AtomicU32> {
    /// Byte offset of the next byte to write. The producer writes it.
    pub(crate) write_index: W,
    /// Byte offset of the next byte to read. The consumer writes it.
    pub(crate) read_index: W,
    /// Not 0: the producer does not have to signal. The consumer writes it.
    pub(crate) interrupt_mask: W,
    /// Not 0: the producer waits until that many bytes are free. The producer writes it.
    pub(crate) pending_send_size: W,
    /// Real hosts store statistics here. This code neither reads nor writes them.
    reserved: [W; 12],
    /// The features of both ends.
    pub(crate) feature_bits: W,
}

impl<W: Word> Control<W> {
    /// Producer: makes all bytes up to `to` visible. The first value is true when the consumer may
    /// sleep and must be signalled (vmbus-core 7.2); the second is the consumer's index at that
    /// time.
    ///
    /// The mask is read before the read index. A consumer publishes its read index before it
    /// unmasks, so a mask of 0 comes with a read index that is at least that fresh.
    #[inline]
    pub(crate) fn publish_write(&self, from: u32, to: u32) -> (bool, Option<u32>) {
        self.write_index.publish(to);
        if self.interrupt_mask.read() != 0 {
            return (false, None);
        }
        let read = self.read_index.read();
        (read == from, Some(read))
    }

    /// Consumer: releases the space up to `to`. Returns the producer's pending send size, 0 when
    /// the producer does not wait.
    #[inline]
    pub(crate) fn publish_read(&self, to: u32) -> u32 {
        self.read_index.publish(to);
        self.pending_send_size.read()
    }

    /// Consumer: requests no signals while it drains. The request takes effect some time later;
    /// signals until then are harmless.
    #[inline]
    pub(crate) fn mask(&self) {
        self.interrupt_mask.set(1);
    }

    /// Consumer: requests signals again. Returns the write index of that moment: the peer sends no
    /// signal for packets before it.
    #[inline]
    pub(crate) fn unmask(&self) -> u32 {
        self.interrupt_mask.publish(0);
        self.write_index.read()
    }

    /// Producer: requests a signal when space is released. Returns the read index of that moment:
    /// the peer sends no signal for space before it.
    #[inline]
    pub(crate) fn ask_for_space(&self, pending: u32) -> u32 {
        self.pending_send_size.publish(pending);
        self.read_index.read()
    }
}

/// Consumer: returns whether the release of space, from `before` to `now` free bytes, must wake a
/// producer that waits for `pending`.
///
/// Peers differ: some wait for `free > pending`, some for `free >= pending` with the low three bits
/// of `pending` ignored. The signal is due when either threshold is crossed; a peer with the other
/// rule gets at most one extra signal for each wait. A wait for more than an empty ring has counts
/// as a wait for an empty ring (vmbus-core 7.3).
pub(crate) fn crosses(pending: u32, before: u32, now: u32, data_size: u32) -> bool {
    let pending = (pending & !7).min(data_size.wrapping_sub(8));
    before < now && before <= pending && now >= pending
}

/// Producer: returns the pending send size for a wake-up when more than `needed` bytes are free;
/// `needed` is a multiple of 8.
///
/// With all three low bits set, `free > pending` (Linux) and `free >= pending` both mean `free >
/// needed`, because free space comes in units of 8. A peer that ignores the low bits and compares
/// with `>=` signals one unit too early.
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
        // With words of size 0 the structure has size 0, so no field is a plain integer. The guest
        // could change a plain integer under a reference.
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
