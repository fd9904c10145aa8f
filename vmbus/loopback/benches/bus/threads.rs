//! Packets from one thread to another, one in a commit. Each thread spins when it must wait. The
//! limit is the minimum for any two threads.

use std::cell::UnsafeCell;
use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vmbus_ring::{OutPacket, WriteError};

use crate::clock::best_round;
use crate::number::Number;
use crate::ring::{DATA_PAGES, Ends};

/// Rounds. There are more than elsewhere, because a round counts only when both threads had a
/// processor all the time.
const ROUNDS: usize = 100;

pub(crate) fn measure(numbers: &mut Vec<Number>) {
    // The number is many times the capacity of the rings, so that a head start of one side does not
    // count. It is otherwise small, as few rounds are undisturbed on a busy machine.
    measure_size::<16>(10_000, numbers);
    measure_size::<4096>(500, numbers);
}

fn measure_size<const N: usize>(packets: u64, numbers: &mut Vec<Number>) {
    let limit = best_round(packets, ROUNDS, bare_across::<N>);
    let value = best_round(packets, ROUNDS, across::<N>);
    numbers.push(Number::new(format!("ring_two_threads_{N}_ns"), "ns", value, limit));
}

/// Makes two threads begin at one moment, and returns that moment, so that the time includes no
/// wake-up.
#[derive(Default)]
struct Gate {
    waiting: AtomicBool,
    open: AtomicBool,
}

impl Gate {
    fn wait(&self) {
        self.waiting.store(true, Ordering::Release);
        while !self.open.load(Ordering::Acquire) {
            spin_loop();
        }
    }

    fn open(&self) -> Instant {
        while !self.waiting.load(Ordering::Acquire) {
            thread::yield_now();
        }
        let start = Instant::now();
        self.open.store(true, Ordering::Release);
        start
    }
}

/// Returns the time of `packets` packets of `N` bytes through a ring.
fn across<const N: usize>(packets: u64) -> Duration {
    let mut ends = Ends::new(DATA_PAGES);
    let (outgoing, incoming) = (&mut ends.outgoing, &mut ends.incoming);
    let (payload, mut to) = ([1_u8; N], [0_u8; N]);
    let gate = Gate::default();
    thread::scope(|scope| {
        scope.spawn(|| {
            gate.wait();
            let mut left = packets;
            while left != 0 {
                let mut batch = outgoing.batch().unwrap();
                match batch.write(&OutPacket::in_band(left, &[&payload])) {
                    Ok(()) => left -= 1,
                    Err(WriteError::Full { .. }) => spin_loop(),
                    Err(error) => panic!("{error}"),
                }
                black_box(batch.commit());
            }
        });
        let start = gate.open();
        let mut left = packets;
        while left != 0 {
            let mut batch = incoming.batch().unwrap();
            let before = left;
            while let Some(packet) = batch.next().unwrap() {
                black_box(packet.read_payload(&mut to));
                left -= 1;
            }
            black_box(batch.commit());
            if left == before {
                spin_loop();
            }
        }
        start.elapsed()
    })
}

/// A bare ring: slots, two counters on cache lines of their own, no descriptors, no signals, no
/// checks.
struct Bare<const N: usize> {
    slots: Vec<Slot<N>>,
    head: Line,
    tail: Line,
}

#[repr(align(64))]
struct Slot<const N: usize>(UnsafeCell<[u8; N]>);

// SAFETY: `head` and `tail` determine which of the two threads owns a slot.
unsafe impl<const N: usize> Sync for Slot<N> {}

#[repr(align(128))]
struct Line(AtomicUsize);

/// Returns the time of `messages` messages of `N` bytes through a bare ring of equal size.
fn bare_across<const N: usize>(messages: u64) -> Duration {
    let slots =
        (0..DATA_PAGES * 4096 / size_of::<Slot<N>>()).map(|_| Slot(UnsafeCell::new([0; N])));
    let bare = Bare { slots: slots.collect(), head: Line(0.into()), tail: Line(0.into()) };
    let (messages, payload, mut to) = (messages as usize, [1_u8; N], [0_u8; N]);
    let gate = Gate::default();
    thread::scope(|scope| {
        scope.spawn(|| {
            gate.wait();
            let (mut sent, mut free_to) = (0, bare.slots.len());
            for slot in bare.slots.iter().cycle().take(messages) {
                while sent == free_to {
                    free_to = bare.tail.0.load(Ordering::Acquire) + bare.slots.len();
                    spin_loop();
                }
                // SAFETY: the reader is finished with this slot, and `head` does not cover the next
                // message yet.
                unsafe { *slot.0.get() = *black_box(&payload) };
                sent += 1;
                bare.head.0.store(sent, Ordering::Release);
            }
        });
        let start = gate.open();
        let (mut taken, mut there) = (0, 0);
        for slot in bare.slots.iter().cycle().take(messages) {
            while taken == there {
                there = bare.head.0.load(Ordering::Acquire);
                spin_loop();
            }
            // SAFETY: the writer has filled this slot, and does not write it again before `tail`
            // covers it.
            to = unsafe { *slot.0.get() };
            black_box(&mut to);
            taken += 1;
            bare.tail.0.store(taken, Ordering::Release);
        }
        start.elapsed()
    })
}
