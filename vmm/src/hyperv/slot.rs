//! One message slot: who may write it when (spec vmbus-core section 2.1).
//!
//! Host side of a three-party game. The guest copies a message, sets the type to 0, and writes EOM if it then sees the
//! pending bit. KVM writes timer messages while the VP runs. The host writes here only while the VP does not run.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use vm_memory::{Bytes, VolatileMemory, VolatileMemoryError, VolatileSlice};

/// Bytes of a slot.
pub(super) const SLOT_SIZE: usize = 256;
/// The most payload.
pub(super) const MAX_PAYLOAD: usize = 240;
/// Type of a VMBus channel message.
const CHANNEL_MESSAGE: u32 = 1;
const EMPTY: u32 = 0;
const PENDING: u8 = 1;

const TYPE: usize = 0;
const SIZE: usize = 4;
const FLAGS: usize = 5;
const RESERVED: usize = 6;
const PAYLOAD: usize = 16;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Post {
    /// It is in the slot: raise the SINT.
    Written,
    /// The slot is in use; the guest will write EOM when it has emptied it.
    Busy,
}

/// Puts `payload` (at most [`MAX_PAYLOAD`] bytes) into the slot if it is free. `more`: others wait behind it.
pub(super) fn post(
    slot: &VolatileSlice<'_>,
    payload: &[u8],
    more: bool,
) -> Result<Post, VolatileMemoryError> {
    let message_type = slot.get_atomic_ref::<AtomicU32>(TYPE)?;
    let flags = slot.get_atomic_ref::<AtomicU8>(FLAGS)?;
    if message_type.load(Ordering::Acquire) != EMPTY {
        flags.fetch_or(PENDING, Ordering::SeqCst);
        // The guest may have emptied the slot before it could see the bit: then no EOM comes, and the slot is ours.
        if message_type.load(Ordering::SeqCst) != EMPTY {
            return Ok(Post::Busy);
        }
    }
    let payload = &payload[..payload.len().min(MAX_PAYLOAD)];
    slot.write_slice(payload, PAYLOAD)?;
    slot.write_slice(&[0; PAYLOAD - RESERVED], RESERVED)?;
    slot.write_slice(&[payload.len() as u8], SIZE)?;
    flags.store(if more { PENDING } else { 0 }, Ordering::Relaxed);
    message_type.store(CHANNEL_MESSAGE, Ordering::Release);
    Ok(Post::Written)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    /// Plain memory in place of a guest page.
    #[repr(align(4096))]
    struct Page([u8; SLOT_SIZE]);

    impl Page {
        fn new() -> Box<Page> {
            Box::new(Page([0; SLOT_SIZE]))
        }

        fn slot(&mut self) -> VolatileSlice<'_> {
            VolatileSlice::from(&mut self.0[..])
        }
    }

    #[test]
    fn test_post_empty_slot_writes_exact_size_and_type() {
        let mut page = Page::new();
        page.0[5] = 0xFE;
        assert_eq!(post(&page.slot(), &[7; 33], false).unwrap(), Post::Written);
        assert_eq!(page.0[..8], [1, 0, 0, 0, 33, 0, 0, 0]);
        assert_eq!(page.0[16..49], [7; 33]);
        assert_eq!(page.0[49], 0);
    }

    #[test]
    fn test_post_with_more_behind_sets_pending() {
        let mut page = Page::new();
        post(&page.slot(), &[1; 240], true).unwrap();
        assert_eq!((page.0[4], page.0[5]), (240, PENDING));
    }

    #[test]
    fn test_post_occupied_slot_sets_pending_and_touches_nothing_else() {
        let mut page = Page::new();
        // A timer message of KVM's.
        page.0[..4].copy_from_slice(&0x8000_0010_u32.to_le_bytes());
        page.0[4] = 24;
        page.0[16..40].fill(9);
        let before = page.0;
        assert_eq!(post(&page.slot(), &[7; 40], false).unwrap(), Post::Busy);
        let mut expected = before;
        expected[5] = PENDING;
        assert_eq!(page.0, expected);
        // The guest consumes it and, having seen the bit, writes EOM: the next try succeeds.
        page.0[..4].fill(0);
        assert_eq!(post(&page.slot(), &[7; 40], false).unwrap(), Post::Written);
        assert_eq!((page.0[4], page.0[5]), (40, 0));
    }

    /// A guest that empties the slot at every possible moment: no message is lost, none is overwritten, and whenever the
    /// host was told "busy" the guest sees the pending bit.
    #[test]
    fn test_post_racing_guest_loses_nothing_and_never_stalls() {
        const MESSAGES: u32 = 20_000;
        let mut page = Page::new();
        let slot = page.slot();
        let eom = &AtomicBool::new(false);
        let message_type = slot.get_atomic_ref::<AtomicU32>(TYPE).unwrap();
        let flags = slot.get_atomic_ref::<AtomicU8>(FLAGS).unwrap();
        let payload = slot.get_atomic_ref::<AtomicU32>(PAYLOAD).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for expected in 0..MESSAGES {
                    while message_type.load(Ordering::Acquire) == EMPTY {
                        std::thread::yield_now();
                    }
                    assert_eq!(payload.load(Ordering::Relaxed), expected);
                    message_type.store(EMPTY, Ordering::SeqCst);
                    if flags.load(Ordering::SeqCst) & PENDING != 0 {
                        eom.store(true, Ordering::SeqCst);
                    }
                }
            });
            for number in 0..MESSAGES {
                // As the synic does: EOMs from before this try do not count.
                eom.store(false, Ordering::SeqCst);
                while post(&slot, &number.to_le_bytes(), false).unwrap() == Post::Busy {
                    while !eom.swap(false, Ordering::SeqCst) {
                        std::thread::yield_now();
                    }
                }
            }
        });
    }
}
