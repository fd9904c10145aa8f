//! The hand-over of messages under a model checker: every interleaving of who posts, the VP's thread and the guest.
//!
//! A message that waits with nothing on its way to bring it is a deadlock, which the checker reports. So that the models are known to see
//! what they are for, one hand-shake runs without its barrier and with a late "forget" as well, and must fail.

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU32, Ordering, fence};
use loom::sync::{Arc, Mutex, Notify};
use loom::thread;

use super::{EMPTY, Lines, Mailbox, Slot};

const SINT: u8 = 2;
const MESSAGE: u32 = 1;
const TIMER: u32 = 0x8000_0010;

/// What is wrong with the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Nothing orders the pending bit against the second look at the slot.
    NoBarrier,
    /// EOMs are forgotten when the watch is set up: those that came meanwhile too.
    LateForget,
}

struct Machine {
    fault: Fault,
    mailbox: Mailbox,
    slot: Words,
    eoms: Mutex<Eoms>,
    /// Rung for the VP's thread, and how often because of an EOM.
    kick: Notify,
    kicks: AtomicU32,
    /// Rung for the guest.
    interrupt: Notify,
    /// Messages that the host has put into the slot. Its own.
    raised: AtomicU32,
}

/// A slot: only the type and the flags are atomic, so that the checker finds every other access that nothing orders.
struct Words {
    message_type: AtomicU32,
    flags: AtomicU32,
    payload: UnsafeCell<u8>,
}

/// The resample eventfd and its place in the epoll set: level-triggered, one shot.
#[derive(Default)]
struct Eoms {
    came: bool,
    armed: bool,
}

/// The slot in the hands of the host.
struct HostSlot<'a>(&'a Machine);

impl Slot for HostSlot<'_> {
    fn message_type(&self) -> u32 {
        self.0.slot.message_type.load(Ordering::Acquire)
    }

    fn ask_for_eom(&self) {
        // The checker takes sequentially consistent accesses for weaker ones than they are: the barrier is spelled out.
        self.0.slot.flags.fetch_or(1, Ordering::AcqRel);
        if self.0.fault != Fault::NoBarrier {
            fence(Ordering::SeqCst);
        }
    }

    fn fill(&self, payload: &[u8], more: bool) {
        // SAFETY: the checker watches that nobody else looks at the same time.
        self.0.slot.payload.with_mut(|place| unsafe { *place = payload[0] });
        self.0.slot.flags.store(u32::from(more), Ordering::Relaxed);
        self.0.slot.message_type.store(MESSAGE, Ordering::Release);
    }
}

impl Lines for Machine {
    fn raise(&self, sint: u8) {
        assert_eq!(sint, SINT);
        self.raised.fetch_add(1, Ordering::Relaxed);
        self.interrupt.notify();
    }

    fn forget_eoms(&self) {
        if self.fault != Fault::LateForget {
            self.eoms.lock().unwrap().came = false;
        }
    }

    fn kick_at_eom(&self) {
        let mut eoms = self.eoms.lock().unwrap();
        if self.fault == Fault::LateForget {
            eoms.came = false;
        }
        eoms.armed = !eoms.came;
        if eoms.came {
            self.kick_after_eom();
        }
    }
}

impl Machine {
    fn new(fault: Fault) -> Arc<Self> {
        let slot = Words {
            message_type: AtomicU32::new(EMPTY),
            flags: AtomicU32::new(0),
            payload: UnsafeCell::new(0),
        };
        Arc::new(Self {
            fault,
            mailbox: Mailbox::new(),
            slot,
            eoms: Mutex::new(Eoms::default()),
            kick: Notify::new(),
            kicks: AtomicU32::new(0),
            interrupt: Notify::new(),
            raised: AtomicU32::new(0),
        })
    }

    /// Any thread that has a message.
    fn post(&self, number: u8) {
        self.mailbox.queue(SINT, &[number]);
        self.kick.notify();
    }

    /// The VP's thread, until it has delivered `count` messages. `timer`: KVM has one timer message to deliver, while the VP runs.
    fn run_vp(&self, count: u32, mut timer: bool) {
        while self.raised.load(Ordering::Relaxed) < count {
            if std::mem::take(&mut timer) && self.slot.message_type.load(Ordering::Acquire) == EMPTY {
                self.slot.flags.store(0, Ordering::Relaxed);
                self.slot.message_type.store(TIMER, Ordering::Release);
                self.interrupt.notify();
            }
            self.kick.wait();
            self.mailbox.deliver(|_| Some(HostSlot(self)), self);
        }
        assert!(self.mailbox.is_empty());
    }

    /// The guest, until it has had `count` messages in their order. It runs beside the VP's thread: other VPs may look at the slot too.
    fn run_guest(&self, count: u8) {
        let mut expected = 0;
        while expected < count {
            let kind = self.slot.message_type.load(Ordering::Acquire);
            if kind == EMPTY {
                self.interrupt.wait();
                continue;
            }
            if kind == MESSAGE {
                // SAFETY: as in `fill`.
                let number = self.slot.payload.with(|place| unsafe { *place });
                assert_eq!(number, expected, "lost, out of order or overwritten");
                expected += 1;
            }
            let swapped =
                self.slot.message_type.compare_exchange(kind, EMPTY, Ordering::AcqRel, Ordering::Acquire);
            assert_eq!(swapped, Ok(kind), "overwritten before it was taken");
            fence(Ordering::SeqCst);
            if self.slot.flags.load(Ordering::Acquire) & 1 != 0 {
                self.end_of_message();
            }
        }
    }

    fn end_of_message(&self) {
        let mut eoms = self.eoms.lock().unwrap();
        eoms.came = true;
        if std::mem::take(&mut eoms.armed) {
            self.kick_after_eom();
        }
    }

    fn kick_after_eom(&self) {
        self.kicks.fetch_add(1, Ordering::Relaxed);
        self.kick.notify();
    }
}

/// The whole life of `count` messages. A lost one, or a sleeper that nobody wakes, is a deadlock.
fn check_life(count: u8, timer: bool) {
    let mut model = loom::model::Builder::new();
    // Without a bound these take hours; what goes wrong here does with one or two preemptions.
    model.preemption_bound = Some(2);
    model.check(move || {
        let machine = Machine::new(Fault::None);
        let vp = {
            let machine = Arc::clone(&machine);
            thread::spawn(move || machine.run_vp(count.into(), timer))
        };
        let guest = {
            let machine = Arc::clone(&machine);
            thread::spawn(move || machine.run_guest(count))
        };
        for number in 0..count {
            machine.post(number);
        }
        vp.join().unwrap();
        guest.join().unwrap();
    });
}

/// One hand-shake: the guest takes the message in the slot while the next one is being delivered.
fn check_hand_shake(fault: Fault) {
    loom::model(move || {
        let machine = Machine::new(fault);
        machine.mailbox.queue(SINT, &[0]);
        machine.mailbox.deliver(|_| Some(HostSlot(&machine)), &*machine);
        machine.mailbox.queue(SINT, &[1]);
        let guest = {
            let machine = Arc::clone(&machine);
            thread::spawn(move || machine.run_guest(1))
        };
        machine.mailbox.deliver(|_| Some(HostSlot(&machine)), &*machine);
        guest.join().unwrap();
        let kicked = machine.kicks.load(Ordering::Relaxed) != 0;
        assert!(kicked || machine.mailbox.is_empty(), "a message waits for ever");
    });
}

#[test]
fn test_model_delivery_against_the_guest_leaves_no_message_without_a_wake() {
    check_hand_shake(Fault::None);
}

#[test]
#[should_panic(expected = "a message waits for ever")]
fn test_model_delivery_without_the_barrier_leaves_a_message_behind() {
    check_hand_shake(Fault::NoBarrier);
}

#[test]
#[should_panic(expected = "a message waits for ever")]
fn test_model_delivery_that_forgets_an_eom_of_its_own_leaves_a_message_behind() {
    check_hand_shake(Fault::LateForget);
}

#[test]
fn test_model_messages_arrive_once_and_in_order_whatever_the_interleaving() {
    check_life(2, false);
}

#[test]
fn test_model_timer_message_and_channel_messages_leave_each_other_alone() {
    check_life(2, true);
}
