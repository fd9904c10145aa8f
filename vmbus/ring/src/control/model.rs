//! The signalling protocol under a model checker: every interleaving and every legal order of
//! memory accesses of two threads.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p vmbus-ring --release --lib control::model`
//!
//! A sleeper that is never woken is a deadlock, which the checker reports. Each handshake is also
//! checked with a publish that lacks its barrier. That check must fail, which shows that the models
//! can detect a missing barrier.

use loom::sync::atomic::{AtomicU32, Ordering, fence};
use loom::sync::{Arc, Notify};
use loom::thread;

use super::{Control, Word, crosses, pending_for};

/// A word with the ring's ordering, or, without `BARRIER`, one that publishes without an order
/// against later reads. The checker supports sequentially consistent fences but treats such
/// accesses as weaker ones, so the barrier is explicit here.
struct ModelWord<const BARRIER: bool>(AtomicU32);

impl<const BARRIER: bool> ModelWord<BARRIER> {
    fn zero() -> Self {
        Self(AtomicU32::new(0))
    }
}

impl<const BARRIER: bool> Word for ModelWord<BARRIER> {
    fn read(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self, value: u32) {
        self.0.store(value, Ordering::Release);
    }

    fn publish(&self, value: u32) {
        self.set(value);
        if BARRIER {
            fence(Ordering::SeqCst);
        }
    }
}

/// Bytes of the models' data: two packets of 24 bytes, and 16 bytes more.
const DATA: u32 = 64;
const PACKET: u32 = 24;

struct Ring<const BARRIER: bool> {
    control: Control<ModelWord<BARRIER>>,
    /// The signal to the consumer: packets.
    packets: Notify,
    /// The signal to the producer: space.
    space: Notify,
}

fn ring<const BARRIER: bool>() -> Arc<Ring<BARRIER>> {
    let control = Control {
        write_index: ModelWord::zero(),
        read_index: ModelWord::zero(),
        interrupt_mask: ModelWord::zero(),
        pending_send_size: ModelWord::zero(),
        reserved: std::array::from_fn(|_| ModelWord::zero()),
        feature_bits: ModelWord::zero(),
    };
    Arc::new(Ring { control, packets: Notify::new(), space: Notify::new() })
}

fn free(read: u32, write: u32) -> u32 {
    DATA - (write + DATA - read) % DATA
}

/// Writes `count` packets, one a commit. Waits for space if the ring is full.
fn produce<const BARRIER: bool>(ring: &Ring<BARRIER>, count: u32) {
    let (mut write, mut read) = (0, 0);
    for _ in 0..count {
        while free(read, write) <= PACKET {
            read = ring.control.ask_for_space(pending_for(PACKET));
            if free(read, write) <= PACKET {
                ring.space.wait();
            }
            ring.control.pending_send_size.set(0);
        }
        let next = (write + PACKET) % DATA;
        let (signal, _) = ring.control.publish_write(write, next);
        write = next;
        if signal {
            ring.packets.notify();
        }
    }
}

/// Reads `count` packets: one a commit when `singly`, otherwise all available ones. Sleeps when
/// there is none.
fn consume<const BARRIER: bool>(ring: &Ring<BARRIER>, count: u32, mask: bool, singly: bool) {
    let (mut read, mut left) = (0, count);
    loop {
        if mask {
            ring.control.mask();
        }
        let write = ring.control.write_index.read();
        while read != write {
            let used = (write + DATA - read) % DATA;
            let taken = if singly { PACKET } else { used };
            let before = read;
            read = (read + taken) % DATA;
            left -= taken / PACKET;
            let pending = ring.control.publish_read(read);
            if pending != 0 {
                let write = ring.control.write_index.read();
                if crosses(pending, free(before, write), free(read, write), DATA) {
                    ring.space.notify();
                }
            }
        }
        if left == 0 {
            return;
        }
        if ring.control.unmask() == read {
            ring.packets.wait();
        }
    }
}

/// Checks the whole life of `count` packets.
fn check_traffic(count: u32, mask: bool, singly: bool) {
    let mut model = loom::model::Builder::new();
    // Without this bound the larger models take hours.
    model.preemption_bound = Some(3);
    model.check(move || {
        let ring = ring::<true>();
        let producer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || produce(&ring, count))
        };
        consume(&ring, count, mask, singly);
        producer.join().unwrap();
    });
}

/// Checks one handshake: the reader takes the only packet and goes to sleep while the next packet
/// is written.
fn check_packet<const BARRIER: bool>() {
    loom::model(|| {
        let ring = ring::<BARRIER>();
        ring.control.mask();
        ring.control.publish_write(0, PACKET);
        let producer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || ring.control.publish_write(PACKET, 2 * PACKET).0)
        };
        let _ = ring.control.publish_read(PACKET);
        let asleep = ring.control.unmask() == PACKET;
        let signalled = producer.join().unwrap();
        assert!(signalled || !asleep, "lost wake-up");
    });
}

/// Checks one handshake: the writer finds the ring full and goes to sleep while the reader takes a
/// packet.
fn check_space<const BARRIER: bool>() {
    loom::model(|| {
        let ring = ring::<BARRIER>();
        ring.control.publish_write(0, 2 * PACKET);
        let consumer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                let pending = ring.control.publish_read(PACKET);
                let write = ring.control.write_index.read();
                pending != 0 && crosses(pending, free(0, write), free(PACKET, write), DATA)
            })
        };
        let read = ring.control.ask_for_space(pending_for(PACKET));
        let asleep = free(read, 2 * PACKET) <= PACKET;
        let signalled = consumer.join().unwrap();
        assert!(signalled || !asleep, "lost wake-up");
    });
}

#[test]
fn test_model_unmask_against_write_loses_no_wakeup() {
    check_packet::<true>();
}

#[test]
fn test_model_space_wait_against_read_loses_no_wakeup() {
    check_space::<true>();
}

#[test]
#[should_panic(expected = "lost wake-up")]
fn test_model_unmask_without_barrier_loses_a_wakeup() {
    check_packet::<false>();
}

#[test]
#[should_panic(expected = "lost wake-up")]
fn test_model_space_wait_without_barrier_loses_a_wakeup() {
    check_space::<false>();
}

#[test]
fn test_model_traffic_in_an_open_ring_comes_to_an_end() {
    for (mask, singly) in [(false, false), (true, false), (true, true)] {
        check_traffic(2, mask, singly);
    }
}

#[test]
fn test_model_traffic_through_a_full_ring_comes_to_an_end() {
    for (mask, singly) in [(false, true), (true, false)] {
        check_traffic(3, mask, singly);
    }
}
