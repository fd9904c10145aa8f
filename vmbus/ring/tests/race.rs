//! A test for lost wake-ups, with real threads (checklist 64 and 66). The model checker in
//! `src/control/model.rs` covers the rare interleavings.
//!
//! `VMBUS_RING_RACES=10000000` runs more rounds than the default.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use common::ring;
use vmbus_ring::{Incoming, Mode, OutPacket, Outgoing, SpaceWait, WriteError};

/// Only a lost wake-up takes this long.
const FOREVER: Duration = Duration::from_secs(60);

fn rounds() -> u64 {
    std::env::var("VMBUS_RING_RACES")
        .ok()
        .map_or(1_000_000, |rounds| rounds.parse().expect("VMBUS_RING_RACES is a number"))
}

/// A doorbell. The sleeper below spins for a short time before it sleeps, so that both sides often
/// meet.
struct Bell {
    ring: Sender<()>,
}

struct Sleeper {
    bell: Receiver<()>,
}

fn doorbell() -> (Bell, Sleeper) {
    let (ring, bell) = channel();
    (Bell { ring }, Sleeper { bell })
}

impl Bell {
    fn ring(&self) {
        // The other end may be finished already.
        let _ = self.ring.send(());
    }
}

impl Sleeper {
    /// Drops earlier signals, because the next read of the ring sees their packets. A remaining
    /// signal would hide a lost one.
    fn forget(&self) {
        while self.bell.try_recv().is_ok() {}
    }

    /// Waits for the doorbell. Returns false when the other end is gone.
    fn wait(&self, what: &str) -> bool {
        for _ in 0..200 {
            if self.bell.try_recv().is_ok() {
                return true;
            }
            std::hint::spin_loop();
        }
        match self.bell.recv_timeout(FOREVER) {
            Ok(()) => true,
            Err(RecvTimeoutError::Disconnected) => false,
            Err(RecvTimeoutError::Timeout) => panic!("lost wake-up: {what}"),
        }
    }
}

/// Reads until `count` packets have arrived, in order. When `mask`, it masks signals while it
/// drains.
fn consume(mut incoming: Incoming, count: u64, mask: bool, packets: &Sleeper, space: &Bell) {
    let mut next = 0;
    loop {
        if mask {
            incoming.mask();
        }
        let mut batch = incoming.batch().unwrap();
        while let Some(packet) = batch.next().unwrap() {
            assert_eq!(packet.transaction_id(), next);
            assert_eq!(packet.read::<u64>(), Some(next), "the payload is there when the index is");
            next += 1;
        }
        if batch.commit() {
            space.ring();
        }
        if next == count {
            return;
        }
        packets.forget();
        if !incoming.unmask().unwrap() {
            packets.wait("packets wait and nobody signalled");
        }
    }
}

/// Writes `count` packets in batches of 1 to 3. It pauses so that the reader often finds the ring
/// empty.
fn produce(mut outgoing: Outgoing, count: u64, payload: usize, packets: &Bell, space: &Sleeper) {
    let mut payload = vec![0; payload];
    let mut next = 0;
    while next < count {
        let mut batch = outgoing.batch().unwrap();
        let mut full = None;
        for _ in 0..=(next % 3) {
            payload[..8].copy_from_slice(&next.to_le_bytes());
            match batch.write(&OutPacket::in_band(next, &[&payload])) {
                Ok(()) => next += 1,
                Err(WriteError::Full { needed }) => {
                    full = Some(needed);
                    break;
                }
                Err(error) => panic!("{error}"),
            }
            if next == count {
                break;
            }
        }
        if batch.commit() {
            packets.ring();
        }
        space.forget();
        match full.map(|needed| outgoing.wait_for_space(needed).unwrap()) {
            Some(SpaceWait::Signalled) => {
                space.wait("space is there and nobody signalled");
                outgoing.space_came();
            }
            Some(SpaceWait::Poll) => panic!("both ends know the feature"),
            Some(SpaceWait::Ready) => {}
            None => (0..next % 64).for_each(|_| std::hint::spin_loop()),
        }
    }
}

fn race(count: u64, payload: usize, mask: bool, mode: Mode) {
    let ring = ring(1, mode);
    let (packets, packets_heard) = doorbell();
    let (space, space_heard) = doorbell();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let done = &done;
        scope.spawn(move || {
            // The doorbells stay open until the reader is finished, because their end would look
            // like a wake-up.
            produce(ring.outgoing, count, payload, &packets, &space_heard);
            while !done.load(Ordering::Relaxed) {
                thread::yield_now();
            }
        });
        consume(ring.incoming, count, mask, &packets_heard, &space);
        done.store(true, Ordering::Relaxed);
    });
}

/// Checklist 64: the reader unmasks while the writer publishes.
#[test]
fn test_ring_unmask_racing_a_write_loses_no_wakeup() {
    race(rounds(), 8, true, Mode::Mirrored);
    race(rounds() / 10, 8, false, Mode::Paged);
}

/// Checklist 66 as a race: the writer requests space while the reader releases it.
#[test]
fn test_ring_space_wait_racing_a_read_loses_no_wakeup() {
    race(rounds() / 4, 1000, true, Mode::Mirrored);
    race(rounds() / 10, 2000, false, Mode::Paged);
}
