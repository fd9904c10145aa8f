//! The delivery of messages under a model checker: every interleaving of posters, the VP's thread
//! and the guest.
//!
//! A message that waits without a kick or EOM is a deadlock, which the checker reports. To prove
//! that the models find their faults, the hand-shakes run with each [`Fault`] as well, and must
//! fail.

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU32, Ordering, fence};
use loom::sync::{Arc, Mutex, MutexGuard, Notify};
use loom::thread;
use vmbus_protocol::offer::VMBUS_SINT as SINT;

use super::{EMPTY, InterruptSink, Mailbox, Slot};

const MESSAGE: u32 = 1;
const TIMER: u32 = 0x8000_0010;

/// A fault of the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// The pending bit and the second read of the slot are not ordered.
    NoBarrier,
    /// EOMs are taken when the watch begins, including those since the delivery.
    LateTake,
    /// A delivery takes the EOMs of other VPs and kicks no VP.
    Swallow,
    /// An EOM is reported to the VP that wrote it alone.
    WriterOnly,
}

/// The VP with the slot in use, and another one. EOMs are written on the other one.
const BUSY: usize = 0;
const OTHER: usize = 1;

struct Machine {
    fault: Fault,
    vps: [Vp; 2],
    eoms: Mutex<Eoms>,
    /// Signalled for the guest.
    interrupt: Notify,
}

struct Vp {
    mailbox: Mailbox,
    slot: Words,
    /// Signalled for the VP's thread, and how often because of an EOM.
    kick: Notify,
    kicks: AtomicU32,
    /// Number of messages that the host has written to this VP's slot.
    raised: AtomicU32,
}

/// A slot. Only the type and the flags are atomic, so that the checker finds every other access
/// that is not ordered.
struct Words {
    message_type: AtomicU32,
    flags: AtomicU32,
    payload: UnsafeCell<u8>,
}

/// The resample eventfd of all VPs and its entry in the epoll set: level-triggered, one shot.
#[derive(Default)]
struct Eoms {
    came: bool,
    armed: bool,
}

/// The slot, as the host uses it.
struct HostSlot<'a>(&'a Words, Fault);

impl Slot for HostSlot<'_> {
    fn message_type(&self) -> u32 {
        self.0.message_type.load(Ordering::Acquire)
    }

    fn ask_for_eom(&self) {
        // The checker takes sequentially consistent accesses for weaker ones than they are: the
        // barrier is written out.
        self.0.flags.fetch_or(1, Ordering::AcqRel);
        if self.1 != Fault::NoBarrier {
            fence(Ordering::SeqCst);
        }
    }

    fn fill(&self, payload: &[u8], more: bool) {
        // SAFETY: the checker watches that no other thread accesses it at the same time.
        self.0.payload.with_mut(|place| unsafe { *place = payload[0] });
        self.0.flags.store(u32::from(more), Ordering::Relaxed);
        self.0.message_type.store(MESSAGE, Ordering::Release);
    }
}

/// The interrupts of one VP.
struct VpLines<'a>(&'a Machine, usize);

impl InterruptSink for VpLines<'_> {
    fn raise(&self, sint: u8) {
        assert_eq!(sint, SINT);
        self.0.vps[self.1].raised.fetch_add(1, Ordering::Relaxed);
        self.0.interrupt.notify();
    }

    fn take_eoms(&self) {
        let machine = self.0;
        if machine.fault == Fault::LateTake {
            return;
        }
        let came = std::mem::take(&mut machine.eoms.lock().unwrap().came);
        if came && machine.fault != Fault::Swallow {
            machine.kick_waiting(Some(self.1));
        }
    }

    fn watch_eoms(&self) {
        let mut eoms = self.0.eoms.lock().unwrap();
        if self.0.fault == Fault::LateTake {
            eoms.came = false;
        }
        eoms.armed = true;
        self.0.watch(eoms);
    }
}

impl Machine {
    fn new(fault: Fault) -> Arc<Self> {
        let vp = || Vp {
            mailbox: Mailbox::new(),
            slot: Words {
                message_type: AtomicU32::new(EMPTY),
                flags: AtomicU32::new(0),
                payload: UnsafeCell::new(0),
            },
            kick: Notify::new(),
            kicks: AtomicU32::new(0),
            raised: AtomicU32::new(0),
        };
        let eoms = Mutex::new(Eoms::default());
        Arc::new(Self { fault, vps: [vp(), vp()], eoms, interrupt: Notify::new() })
    }

    /// Runs a thread that posts a message.
    fn post(&self, vp: usize, number: u8) {
        self.vps[vp].mailbox.queue(SINT, &[number]);
        self.vps[vp].kick.notify();
    }

    /// Runs a delivery on the VP's thread.
    fn deliver(&self, vp: usize) {
        let slot = &self.vps[vp].slot;
        self.vps[vp].mailbox.deliver(|_| Some(HostSlot(slot, self.fault)), &VpLines(self, vp));
    }

    /// The thread of a VP, until it has delivered `count` messages. `timer`: KVM has one timer
    /// message to deliver, while the VP runs.
    fn run_vp(&self, number: usize, count: u32, mut timer: bool) {
        let vp = &self.vps[number];
        while vp.raised.load(Ordering::Relaxed) < count {
            if std::mem::take(&mut timer) && vp.slot.message_type.load(Ordering::Acquire) == EMPTY {
                vp.slot.flags.store(0, Ordering::Relaxed);
                vp.slot.message_type.store(TIMER, Ordering::Release);
                self.interrupt.notify();
            }
            vp.kick.wait();
            self.deliver(number);
        }
        assert!(vp.mailbox.is_empty());
    }

    /// The guest, until it has had `count` messages of a VP in their order. It runs beside the VP's
    /// thread: other VPs may read the slot too, and write EOM.
    fn run_guest(&self, vp: usize, count: u8) {
        let slot = &self.vps[vp].slot;
        let mut expected = 0;
        while expected < count {
            let kind = slot.message_type.load(Ordering::Acquire);
            if kind == EMPTY {
                self.interrupt.wait();
                continue;
            }
            if kind == MESSAGE {
                // SAFETY: as in `fill`.
                let number = slot.payload.with(|place| unsafe { *place });
                assert_eq!(number, expected, "lost, out of order or overwritten");
                expected += 1;
            }
            let swapped = slot.message_type.compare_exchange(
                kind,
                EMPTY,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            assert_eq!(swapped, Ok(kind), "overwritten before it was taken");
            fence(Ordering::SeqCst);
            if slot.flags.load(Ordering::Acquire) & 1 != 0 {
                self.end_of_message();
            }
        }
    }

    /// EOM, written on [`OTHER`].
    fn end_of_message(&self) {
        let mut eoms = self.eoms.lock().unwrap();
        eoms.came = true;
        self.watch(eoms);
    }

    /// The event loop: when the eventfd is readable and watched, it is no longer watched, is read,
    /// and VPs are kicked.
    fn watch(&self, mut eoms: MutexGuard<'_, Eoms>) {
        if eoms.came && eoms.armed {
            *eoms = Eoms::default();
            drop(eoms);
            self.kick_waiting(None);
        }
    }

    fn kick_waiting(&self, except: Option<usize>) {
        for (number, vp) in self.vps.iter().enumerate() {
            let told = self.fault != Fault::WriterOnly || number == OTHER;
            if told && Some(number) != except && !vp.mailbox.is_empty() {
                vp.kicks.fetch_add(1, Ordering::Relaxed);
                vp.kick.notify();
            }
        }
    }
}

/// The whole life of `count` messages. A lost one, or a sleeper that is never woken, is a deadlock.
fn check_life(count: u8, timer: bool) {
    let mut model = loom::model::Builder::new();
    // Without a bound these take hours; a fault shows with one or two preemptions.
    model.preemption_bound = Some(2);
    model.check(move || {
        let machine = Machine::new(Fault::None);
        let vp = {
            let machine = Arc::clone(&machine);
            thread::spawn(move || machine.run_vp(BUSY, count.into(), timer))
        };
        let guest = {
            let machine = Arc::clone(&machine);
            thread::spawn(move || machine.run_guest(BUSY, count))
        };
        for number in 0..count {
            machine.post(BUSY, number);
        }
        vp.join().unwrap();
        guest.join().unwrap();
    });
}

/// One hand-shake: the guest takes the message in the slot, and writes EOM on another VP, while the
/// next one is being delivered. `busy_other`: the other VP delivers a message of its own at the
/// same time, and takes EOMs.
fn check_hand_shake(fault: Fault, busy_other: bool) {
    loom::model(move || {
        let machine = Machine::new(fault);
        machine.vps[BUSY].mailbox.queue(SINT, &[0]);
        machine.deliver(BUSY);
        machine.vps[BUSY].mailbox.queue(SINT, &[1]);
        let guest = {
            let machine = Arc::clone(&machine);
            thread::spawn(move || machine.run_guest(BUSY, 1))
        };
        let other = busy_other.then(|| {
            let machine = Arc::clone(&machine);
            thread::spawn(move || {
                machine.vps[OTHER].mailbox.queue(SINT, &[0]);
                machine.deliver(OTHER);
            })
        });
        machine.deliver(BUSY);
        guest.join().unwrap();
        if let Some(other) = other {
            other.join().unwrap();
        }
        let busy = &machine.vps[BUSY];
        let kicked = busy.kicks.load(Ordering::Relaxed) != 0;
        assert!(kicked || busy.mailbox.is_empty(), "a message waits for ever");
    });
}

#[test]
fn test_model_delivery_against_the_guest_leaves_no_message_without_a_wake() {
    check_hand_shake(Fault::None, false);
}

#[test]
fn test_model_eom_on_another_vp_that_delivers_too_leaves_no_message_without_a_wake() {
    check_hand_shake(Fault::None, true);
}

#[test]
#[should_panic(expected = "a message waits for ever")]
fn test_model_delivery_without_the_barrier_leaves_a_message_behind() {
    check_hand_shake(Fault::NoBarrier, false);
}

#[test]
#[should_panic(expected = "a message waits for ever")]
fn test_model_delivery_that_forgets_an_eom_of_its_own_leaves_a_message_behind() {
    check_hand_shake(Fault::LateTake, false);
}

#[test]
#[should_panic(expected = "a message waits for ever")]
fn test_model_delivery_that_takes_the_eom_of_another_vp_leaves_a_message_behind() {
    check_hand_shake(Fault::Swallow, true);
}

#[test]
#[should_panic(expected = "a message waits for ever")]
fn test_model_eom_reported_only_to_its_writer_leaves_a_message_behind() {
    check_hand_shake(Fault::WriterOnly, false);
}

#[test]
fn test_model_messages_arrive_once_and_in_order_whatever_the_interleaving() {
    check_life(2, false);
}

#[test]
fn test_model_timer_message_and_channel_messages_leave_each_other_alone() {
    check_life(2, true);
}
