//! A message slot in guest memory.
//!
//! The guest copies a message, sets the type to 0, and writes EOM if it then sees the pending bit.
//! KVM writes timer messages while the VP runs; the host writes here only while the VP does not
//! run.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use vm_memory::{Bytes, VolatileMemory, VolatileSlice};
use vmbus_protocol::limits::MAX_MESSAGE_SIZE;
use vmbus_protocol::offer::VMBUS_MESSAGE_TYPE;

use super::Slot;

/// Bytes of a slot.
pub const SLOT_SIZE: usize = 256;

const TYPE: usize = 0;
const SIZE: usize = 4;
const FLAGS: usize = 5;
const RESERVED: usize = 6;
const PAYLOAD: usize = 16;

const PENDING: u8 = 1;

/// A slot in guest memory.
#[derive(Debug)]
pub struct SlotMemory<'a>(VolatileSlice<'a>);

impl<'a> SlotMemory<'a> {
    /// Returns the slot in exactly these [`SLOT_SIZE`] bytes. `None`: there are more, fewer, or
    /// they do not start at a word.
    #[must_use]
    pub fn new(bytes: VolatileSlice<'a>) -> Option<Self> {
        let words = bytes.len() == SLOT_SIZE && bytes.get_atomic_ref::<AtomicU32>(TYPE).is_ok();
        words.then_some(Self(bytes))
    }

    fn type_word(&self) -> Option<&AtomicU32> {
        self.0.get_atomic_ref(TYPE).ok()
    }

    fn flags(&self) -> Option<&AtomicU8> {
        self.0.get_atomic_ref(FLAGS).ok()
    }
}

/// `new` has checked the bounds: no access fails.
impl Slot for SlotMemory<'_> {
    fn message_type(&self) -> u32 {
        self.type_word().map_or(super::EMPTY, |word| word.load(Ordering::SeqCst))
    }

    fn ask_for_eom(&self) {
        if let Some(flags) = self.flags() {
            // With the sequentially consistent load that follows this is the full barrier.
            flags.fetch_or(PENDING, Ordering::SeqCst);
        }
    }

    fn fill(&self, payload: &[u8], more: bool) {
        let (Some(word), Some(flags)) = (self.type_word(), self.flags()) else { return };
        let payload = payload.get(..MAX_MESSAGE_SIZE).unwrap_or(payload);
        let size = u8::try_from(payload.len()).unwrap_or(u8::MAX);
        let _ = self.0.write_slice(payload, PAYLOAD);
        let _ = self.0.write_slice(&[0; PAYLOAD.wrapping_sub(RESERVED)], RESERVED);
        let _ = self.0.write_slice(&[size], SIZE);
        flags.store(if more { PENDING } else { 0 }, Ordering::Relaxed);
        word.store(VMBUS_MESSAGE_TYPE, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::mailbox::{EMPTY, Post, post};

    /// Plain memory in place of a guest page.
    #[repr(align(4096))]
    struct Page([u8; SLOT_SIZE]);

    impl Page {
        fn new() -> Box<Page> {
            Box::new(Page([0; SLOT_SIZE]))
        }

        fn slot(&mut self) -> SlotMemory<'_> {
            SlotMemory::new(VolatileSlice::from(&mut self.0[..])).unwrap()
        }
    }

    #[test]
    fn test_slot_of_another_size_or_between_words_is_none() {
        let mut page = Page([0; SLOT_SIZE]);
        assert!(SlotMemory::new(VolatileSlice::from(&mut page.0[..255])).is_none());
        assert!(SlotMemory::new(VolatileSlice::from(&mut [0; 260][1..257])).is_none());
    }

    #[test]
    fn test_post_empty_slot_writes_exact_size_and_type() {
        let mut page = Page::new();
        page.0[5] = 0xFE;
        assert_eq!(post(&page.slot(), &[7; 33], false), Post::Written);
        assert_eq!(page.0[..8], [1, 0, 0, 0, 33, 0, 0, 0]);
        assert_eq!(page.0[16..49], [7; 33]);
        assert_eq!(page.0[49], 0);
    }

    #[test]
    fn test_post_with_more_behind_sets_pending() {
        let mut page = Page::new();
        assert_eq!(post(&page.slot(), &[1; 240], true), Post::Written);
        assert_eq!((page.0[4], page.0[5]), (240, PENDING));
    }

    #[test]
    fn test_post_timer_message_in_the_slot_gets_the_pending_bit_and_is_not_overwritten() {
        let mut page = Page::new();
        // A timer message of KVM's.
        page.0[..4].copy_from_slice(&0x8000_0010_u32.to_le_bytes());
        page.0[4] = 24;
        page.0[16..40].fill(9);
        let before = page.0;
        assert_eq!(post(&page.slot(), &[7; 40], false), Post::Busy);
        let mut expected = before;
        expected[5] = PENDING;
        assert_eq!(page.0, expected);
        // The guest consumes it and, having seen the bit, writes EOM: the next try succeeds.
        page.0[..4].fill(0);
        assert_eq!(post(&page.slot(), &[7; 40], false), Post::Written);
        assert_eq!((page.0[4], page.0[5]), (40, 0));
    }

    /// A guest that empties the slot at every possible moment: no message is lost, none is
    /// overwritten, and whenever the result is "busy" the guest sees the pending bit.
    #[test]
    fn test_post_racing_guest_loses_nothing_and_never_stalls() {
        const MESSAGES: u32 = 20_000;
        let mut page = Page::new();
        let slot = page.slot();
        let eom = &AtomicBool::new(false);
        let (message_type, flags) = (slot.type_word().unwrap(), slot.flags().unwrap());
        let payload = slot.0.get_atomic_ref::<AtomicU32>(PAYLOAD).unwrap();
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
                // As a delivery does: EOMs from before this attempt do not count.
                eom.store(false, Ordering::SeqCst);
                while post(&slot, &number.to_le_bytes(), false) == Post::Busy {
                    while !eom.swap(false, Ordering::SeqCst) {
                        std::thread::yield_now();
                    }
                }
            }
        });
    }
}
