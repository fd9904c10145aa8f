//! Delivery of queued messages to a VP: one at a time through the slot of their SINT (vmbus-core
//! 2.1).
//!
//! Three parties take part, each at any time. A thread with a message queues it and then kicks the
//! VP. The VP's own thread, outside the guest, calls [`Mailbox::deliver`]. The guest empties the
//! slot and writes EOM if it then sees the pending bit. It may write EOM on any VP: Linux's panic
//! path reads the slots of all VPs and writes EOM on its own. So an EOM concerns every VP with
//! waiting messages. The rules:
//!
//! | party | first | then |
//! |---|---|---|
//! | poster | queues | kicks: a delivery follows |
//! | delivery, slot busy | sets the pending bit, full barrier | reads it again: busy means EOM |
//! | guest | empties the slot, full barrier | reads the pending bit: set means EOM, on any VP |
//! | delivery, any | takes earlier EOMs first | if any, kicks other VPs with waiting messages |
//! | delivery, message left | | watches for EOMs; one that came since is reported immediately |
//! | watcher of EOMs | takes them | kicks the VPs that have waiting messages |
//!
//! So for a waiting message there is always a kick in progress, or an EOM that will cause one.
//! There is no timer and no polling.
//!
//! Model-checked by `RUSTFLAGS="--cfg loom" cargo test -p vmbus-host --release --lib
//! mailbox::model` (use another target folder).

mod slot;

use std::collections::{BTreeMap, VecDeque};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(loom)]
use loom::sync::{Mutex, MutexGuard};
#[cfg(not(loom))]
use std::sync::{Mutex, MutexGuard};

use vmbus_protocol::limits::MAX_MESSAGE_SIZE;

pub use slot::{SLOT_SIZE, SlotMemory};

/// The message type of an empty slot.
pub const EMPTY: u32 = 0;

/// The slot of one SINT, as its host sees it. The guest reads and empties it at any time.
pub trait Slot {
    /// Returns the message type. No later access of this thread happens before it is read.
    fn message_type(&self) -> u32;

    /// Sets the pending bit, then executes a full barrier: a later [`Slot::message_type`] sees that
    /// the guest emptied the slot, or the guest, having emptied it, sees the bit.
    fn ask_for_eom(&self);

    /// Writes a channel message of at most 240 bytes: the type last, after everything that this
    /// thread wrote before. `more`: with the pending bit set.
    fn fill(&self, payload: &[u8], more: bool);
}

/// The VP's interrupts, for a delivery.
pub trait InterruptSink {
    /// Injects a SINT. If the guest has masked it the interrupt is lost; the message in the slot is
    /// not.
    fn raise(&self, sint: u8);

    /// Takes the EOMs that came so far, on any VP. If there were any, it kicks the other VPs that
    /// have waiting messages: one of the EOMs may have been theirs.
    fn take_eoms(&self);

    /// Watches for EOMs of all VPs until the next one, which kicks every VP that has waiting
    /// messages. An EOM since the last take counts.
    fn watch_eoms(&self);
}

/// The outcome of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Post {
    /// The message is in the slot: raise the SINT.
    Written,
    /// The slot is in use; the guest will write EOM when it has emptied it.
    Busy,
}

/// Writes `payload` to the slot if the slot is free. `more`: other messages wait.
fn post(slot: &impl Slot, payload: &[u8], more: bool) -> Post {
    if slot.message_type() != EMPTY {
        slot.ask_for_eom();
        // The guest may have emptied the slot before it could see the bit. No EOM comes then, and
        // the slot is free.
        if slot.message_type() != EMPTY {
            return Post::Busy;
        }
    }
    slot.fill(payload, more);
    Post::Written
}

/// The messages of one VP that wait for their slots.
#[derive(Debug)]
pub struct Mailbox {
    queues: Mutex<BTreeMap<u8, VecDeque<Message>>>,
    /// Number of waiting messages, readable without the lock. Changes under the lock.
    waiting: AtomicUsize,
}

#[derive(Clone, Copy, Debug)]
struct Message {
    payload: [u8; MAX_MESSAGE_SIZE],
    len: usize,
}

impl Message {
    fn new(bytes: &[u8]) -> Self {
        let len = bytes.len().min(MAX_MESSAGE_SIZE);
        let mut payload = [0; MAX_MESSAGE_SIZE];
        for (to, from) in payload.iter_mut().zip(bytes) {
            *to = *from;
        }
        Self { payload, len }
    }

    fn bytes(&self) -> &[u8] {
        self.payload.get(..self.len).unwrap_or_default()
    }
}

impl Mailbox {
    /// Returns an empty mailbox.
    #[must_use]
    pub fn new() -> Self {
        Self { queues: Mutex::new(BTreeMap::new()), waiting: AtomicUsize::new(0) }
    }

    /// Queues a message for `sint`: its first 240 bytes. Any thread may call it, and must kick the
    /// VP after it.
    pub fn queue(&self, sint: u8, message: &[u8]) {
        let mut queues = self.lock();
        queues.entry(sint).or_default().push_back(Message::new(message));
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// Moves waiting messages to free slots. Only on the VP's thread, while the guest does not run
    /// on it.
    ///
    /// Messages of a SINT without slot (its page is not memory any more) are dropped.
    pub fn deliver<S: Slot>(&self, slot_of: impl Fn(u8) -> Option<S>, lines: &impl InterruptSink) {
        let mut queues = self.lock();
        if queues.is_empty() {
            return;
        }
        // An EOM from here on counts; slots that earlier ones freed are seen below.
        lines.take_eoms();
        let mut busy = false;
        // Empty queues are dropped, so that a burst's memory is given back.
        queues.retain(|&sint, queue| {
            let Some(slot) = slot_of(sint) else {
                self.waiting.fetch_sub(queue.len(), Ordering::Relaxed);
                return false;
            };
            while let Some(message) = queue.front() {
                if post(&slot, message.bytes(), queue.len() > 1) == Post::Busy {
                    busy = true;
                    return true;
                }
                queue.pop_front();
                self.waiting.fetch_sub(1, Ordering::Relaxed);
                lines.raise(sint);
            }
            false
        });
        if busy {
            lines.watch_eoms();
        }
    }

    /// Drops the waiting messages.
    pub fn clear(&self) {
        let mut queues = self.lock();
        queues.clear();
        self.waiting.store(0, Ordering::Relaxed);
    }

    /// Returns the number of waiting messages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Returns whether no message waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the waiting messages: SINT and bytes, those of one SINT in their order.
    #[must_use]
    pub fn messages(&self) -> Vec<(u8, Vec<u8>)> {
        let queues = self.lock();
        let of_queue = |(&sint, queue): (&u8, &VecDeque<Message>)| {
            queue.iter().map(|message| (sint, message.bytes().to_vec())).collect::<Vec<_>>()
        };
        queues.iter().flat_map(of_queue).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u8, VecDeque<Message>>> {
        // The queues are consistent whenever the lock is free.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Mailbox {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, loom))]
mod model;
