//! A peer that rewrites indices, descriptors and range lists while they are read (checklist 73).
//!
//! The reader must return from every call, return only bytes of the ring, and stop at most once.
//! The bytes that it reads are garbage.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::{BOTH_MODES, MASK, PENDING, READ_INDEX, TestRing, WRITE_INDEX, ring_in};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmbus_gpadl::GuestBuffer;
use vmbus_ring::{Incoming, Mode, OutPacket, Outgoing, PlainMemory, RingError, RingMemory};

/// Least number of rounds. The test continues while the peer had too little effect, for example on
/// a machine that does not run it at the same time.
const ROUNDS: u32 = 30_000;
/// A sufficient number of packets and of stops.
const ENOUGH: u64 = 200;
/// More rounds than this mean that the test itself is broken.
const MOST_ROUNDS: u32 = 100_000_000;

fn go_on(round: u32, packets: u64, stops: u64) -> bool {
    assert!(round < MOST_ROUNDS, "{packets} packets, {stops} stops");
    if round.is_multiple_of(1024) {
        thread::yield_now();
    }
    round < ROUNDS || packets < ENOUGH || stops < ENOUGH
}

/// A small private generator, so that a failure repeats with the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Returns a word that is a valid descriptor more often than a random one.
fn nasty_word(random: &mut Random) -> u64 {
    let kind = [6, 7, 9, 0xB, 9, 9][random.next() as usize % 6];
    let sound = !random.next().is_multiple_of(16);
    let offset =
        if sound { 2 + random.next() % 6 } else { [0, 1, 600, 0xFFFF][random.next() as usize % 4] };
    let length = offset
        + if sound { random.next() % 8 } else { [0, 600, 0xFFFF][random.next() as usize % 3] };
    kind | (offset & 0xFFFF) << 16 | (length & 0xFFFF) << 32 | (random.next() & 3) << 48
}

/// Rewrites the ring at `pages` until it is stopped.
fn scribble(memory: &GuestMemoryMmap, pages: &[u64], seed: u64, stop: &AtomicBool) {
    let mut random = Random(seed);
    let data_bytes = (pages.len() as u64 - 1) * 4096;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..64 {
            let at = (random.next() % data_bytes) & !7;
            let address = GuestAddress(pages[1 + at as usize / 4096] * 4096 + at % 4096);
            let word = match random.next() % 16 {
                0 => random.next(),
                // A range head, or the count before the ranges.
                1..4 => (random.next() % 0x3000) | (random.next() % 3) << 32,
                _ => nasty_word(&mut random),
            };
            memory.write_obj(word, address).unwrap();
        }
        let (field, value) = match random.next() % 6 {
            0..3 => (WRITE_INDEX, (random.next() % data_bytes) as u32 & !7),
            3 => (READ_INDEX, (random.next() % data_bytes) as u32 & !7),
            4 => (PENDING, random.next() as u32),
            _ => (MASK, random.next() as u32),
        };
        memory.write_obj(value, GuestAddress(pages[0] * 4096 + field)).unwrap();
        if random.next().is_multiple_of(64) {
            let field = [WRITE_INDEX, READ_INDEX][random.next() as usize % 2];
            memory.write_obj(random.next() as u32, GuestAddress(pages[0] * 4096 + field)).unwrap();
        }
    }
}

fn read_all(
    incoming: &mut Incoming,
    buffer: &mut GuestBuffer,
    size: u32,
) -> Result<u64, RingError> {
    let mut packets = 0;
    let mut bytes = [0; 512];
    let mut ranges = Vec::new();
    let mut batch = incoming.batch()?;
    while let Some(packet) = batch.next()? {
        packets += 1;
        assert!(packets <= u64::from(size) / 24, "a batch is bounded by the ring");
        assert!(packet.payload_len() + 24 <= size as usize);
        packet.read_payload(&mut bytes);
        if packet.gpa_direct(buffer).is_ok() {
            assert!(!buffer.is_empty() && buffer.len() <= 32 << 20);
        }
        let _ = packet.transfer_pages(&mut ranges);
        assert!(ranges.len() <= size as usize / 8);
        let seen: usize = packet.payload_slices().map(|slice| slice.len()).sum();
        assert_eq!(seen, packet.payload_len());
    }
    let _ = batch.commit();
    Ok(packets)
}

/// The pages of a ring that is rewritten.
const PAGES: [u64; 5] = [0, 7, 3, 4, 9];

/// Calls `run` with a ring in `memory`, and its mapping to open it again, while another thread
/// rewrites it with random numbers from `seed`.
fn while_rewritten(
    memory: &PlainMemory,
    mode: Mode,
    seed: u64,
    run: impl FnOnce(TestRing, &RingMemory),
) {
    let ring = ring_in(memory.clone(), PAGES.to_vec(), mode);
    let map = memory.ring(&PAGES, mode).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| scribble(memory.ram().memory(), &PAGES, seed, &stop));
        run(ring, &map);
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn test_ring_rewritten_while_it_is_read_stays_within_bounds() {
    for (seed, mode) in (0x9E37_79B9..).zip(BOTH_MODES) {
        let memory = PlainMemory::new(64).unwrap();
        let (mut packets, mut stops, mut round) = (0, 0, 0);
        while_rewritten(&memory, mode, seed, |TestRing { mut incoming, .. }, map| {
            let mut buffer = GuestBuffer::new(memory.ram().clone());
            while go_on(round, packets, stops) {
                round += 1;
                match read_all(&mut incoming, &mut buffer, 4 * 4096) {
                    Ok(count) => packets += count,
                    Err(error) => {
                        stops += 1;
                        assert_eq!(incoming.stopped(), Some(error));
                        assert!(incoming.unmask().is_err());
                        incoming = open_anyway(|| Incoming::new(map.clone()));
                    }
                }
                let _ = incoming.unmask();
            }
        });
    }
}

#[test]
fn test_ring_rewritten_while_it_is_written_stays_within_bounds() {
    for (seed, mode) in (0xABCD_EF01..).zip(BOTH_MODES) {
        let memory = PlainMemory::new(16).unwrap();
        // The bytes outside the ring must not change.
        let canary: Vec<u64> = (0..16).filter(|page| !PAGES.contains(page)).collect();
        for page in &canary {
            memory.ram().memory().write_slice(&[0xC5; 4096], GuestAddress(page * 4096)).unwrap();
        }
        let (mut packets, mut stops, mut round) = (0, 0, 0);
        while_rewritten(&memory, mode, seed, |TestRing { mut outgoing, .. }, map| {
            while go_on(round, packets, stops) {
                round += 1;
                let payload = vec![round as u8; round as usize * 37 % 9000];
                match write_some(&mut outgoing, &payload) {
                    Ok(count) => packets += count,
                    Err(error) => {
                        stops += 1;
                        assert_eq!(outgoing.stopped(), Some(error));
                        outgoing = open_anyway(|| Outgoing::new(map.clone()));
                    }
                }
            }
        });
        for page in canary {
            let mut bytes = [0; 4096];
            memory.ram().memory().read_slice(&mut bytes, GuestAddress(page * 4096)).unwrap();
            assert_eq!(bytes, [0xC5; 4096], "page {page} is not the ring's");
        }
    }
}

fn write_some(outgoing: &mut Outgoing, payload: &[u8]) -> Result<u64, RingError> {
    let mut batch = outgoing.batch()?;
    let mut count = 0;
    for id in 0..4 {
        match batch.write(&OutPacket::request(id, &[payload, b"tail"])) {
            Ok(()) => count += 1,
            Err(vmbus_ring::WriteError::Corrupt(error)) => return Err(error),
            Err(_) => break,
        }
    }
    let _ = batch.commit();
    let _ = outgoing.wait_for_space(4000)?;
    outgoing.space_came();
    Ok(count)
}

/// Opens the ring again, which a real host would not do. That is refused while an index is wrong.
fn open_anyway<T>(mut open: impl FnMut() -> Result<T, RingError>) -> T {
    loop {
        match open() {
            Ok(end) => return end,
            Err(_) => thread::yield_now(),
        }
    }
}

/// Checklist 73 in slow motion: after a packet was returned, its descriptor changes.
#[test]
fn test_ring_descriptor_rewritten_after_it_was_read_changes_nothing() {
    for mode in [Mode::Mirrored, Mode::Paged] {
        let mut ring = common::ring(1, mode);
        common::write_one(&mut ring.outgoing, 5, &[1; 64]).unwrap();
        common::write_one(&mut ring.outgoing, 6, &[2; 64]).unwrap();
        let data = GuestAddress(ring.pages[1] * 4096);
        let mut batch = ring.incoming.batch().unwrap();
        let packet = batch.next().unwrap().unwrap();
        ring.memory.ram().memory().write_slice(&[0xFF; 24], data).unwrap();
        assert_eq!(
            (packet.transaction_id(), packet.payload_len(), packet.completion_requested()),
            (5, 64, false)
        );
        let mut payload = [0; 100];
        assert_eq!(packet.read_payload(&mut payload), 64);
        assert_eq!(batch.next().unwrap().unwrap().transaction_id(), 6);
        let _ = batch.commit();
        assert_eq!(ring.field(READ_INDEX), 176);
    }
}
