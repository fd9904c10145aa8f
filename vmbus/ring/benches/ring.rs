//! The cost of a packet, compared with the physical limits of the machine. Targets:
//! docs/performance.md.
//!
//! `cargo bench -p vmbus-ring` measures in one process: one thread that writes and reads (both ends
//! of one ring), two threads, and the physical limits: `limit/memcpy` copies the payload in and
//! out, `limit/spsc` passes bare messages through a bare ring.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use vmbus_gpadl::GuestBuffer;
use vmbus_ring::{
    GpaRange, Incoming, Mode, OutPacket, Outgoing, PacketKind, PlainMemory, WriteError,
    gpa_direct_header,
};

/// Data pages of the rings: 60 KiB, like a network or storage channel of a small guest.
const DATA_PAGES: usize = 15;
const BATCH: usize = 16;

struct Ends {
    memory: PlainMemory,
    outgoing: Outgoing,
    incoming: Incoming,
}

fn ends(data_pages: usize, mode: Mode) -> Ends {
    let memory = PlainMemory::new(data_pages + 1 + 64).unwrap();
    // One mapping for both ends: with a second mapping, caches that use virtual addresses would
    // make one of them look slow.
    let map = memory.ring_at(0, data_pages + 1, mode).unwrap();
    map.reset();
    let incoming = Incoming::new(map.clone()).unwrap();
    let outgoing = Outgoing::new(map).unwrap();
    Ends { memory, outgoing, incoming }
}

#[inline]
fn write_batch(outgoing: &mut Outgoing, payload: &[u8], count: usize) {
    let mut batch = outgoing.batch().unwrap();
    for id in 0..count {
        batch.write(&OutPacket::in_band(id as u64, &[payload])).unwrap();
    }
    black_box(batch.commit());
}

#[inline]
fn read_batch(incoming: &mut Incoming, to: &mut [u8]) {
    let mut batch = incoming.batch().unwrap();
    while let Some(packet) = batch.next().unwrap() {
        black_box(packet.transaction_id());
        black_box(packet.read_payload(to));
    }
    black_box(batch.commit());
}

#[inline]
fn look_batch(incoming: &mut Incoming) {
    let mut batch = incoming.batch().unwrap();
    while let Some(packet) = batch.next().unwrap() {
        black_box(packet.transaction_id());
        black_box(packet.payload_slice());
    }
    black_box(batch.commit());
}

fn one_thread(c: &mut Criterion) {
    for mode in [Mode::Mirrored, Mode::Paged] {
        let mut group = c.benchmark_group(format!("one_thread_{mode:?}"));
        for size in [16, 256, 4096, 65536] {
            // Every ring has space for a packet of 64 KiB.
            let mut ends = ends(if size > 4096 { 31 } else { DATA_PAGES }, mode);
            let (payload, mut to) = (vec![1_u8; size], vec![0_u8; size]);
            group.bench_function(BenchmarkId::new("write_read", size), |b| {
                b.iter(|| {
                    write_batch(&mut ends.outgoing, black_box(&payload), 1);
                    read_batch(&mut ends.incoming, &mut to);
                });
            });
            group.bench_function(BenchmarkId::new("write_look", size), |b| {
                b.iter(|| {
                    write_batch(&mut ends.outgoing, black_box(&payload), 1);
                    look_batch(&mut ends.incoming);
                });
            });
        }
        group.finish();
        let mut group = c.benchmark_group(format!("one_thread_batch16_per_packet_{mode:?}"));
        for size in [16, 256, 4096] {
            let mut ends = ends(if size == 4096 { 2 * DATA_PAGES } else { DATA_PAGES }, mode);
            let (payload, mut to) = (vec![1_u8; size], vec![0_u8; size]);
            group.bench_function(BenchmarkId::new("write_read", size), |b| {
                b.iter_custom(|packets| {
                    let batches = packets.div_ceil(BATCH as u64);
                    let start = Instant::now();
                    for _ in 0..batches {
                        write_batch(&mut ends.outgoing, black_box(&payload), BATCH);
                        read_batch(&mut ends.incoming, &mut to);
                    }
                    per_packet(start.elapsed(), batches, packets)
                });
            });
        }
        group.finish();
    }
}

/// Measures packets of 4 KiB in a ring of 12 KiB, which stays in the first-level cache with both
/// buffers: the cost of the ring when memory is cheapest.
fn small_ring(c: &mut Criterion) {
    let mut group = c.benchmark_group("one_thread_small_ring_Mirrored");
    let mut ends = ends(3, Mode::Mirrored);
    let (payload, mut to) = (vec![1_u8; 4096], vec![0_u8; 4096]);
    group.bench_function(BenchmarkId::new("write_read", 4096), |b| {
        b.iter(|| {
            write_batch(&mut ends.outgoing, black_box(&payload), 1);
            read_batch(&mut ends.incoming, &mut to);
        });
    });
    group.bench_function(BenchmarkId::new("write_look", 4096), |b| {
        b.iter(|| {
            write_batch(&mut ends.outgoing, black_box(&payload), 1);
            look_batch(&mut ends.incoming);
        });
    });
    group.finish();
}

/// Returns the time of `packets` packets, from the measured time of `batches` whole batches.
fn per_packet(elapsed: Duration, batches: u64, packets: u64) -> Duration {
    elapsed.mul_f64(packets as f64 / (batches * BATCH as u64) as f64)
}

fn gpa_direct(c: &mut Criterion) {
    let mut group = c.benchmark_group("gpa_direct");
    for pages in [1_usize, 2, 16, 64] {
        let mut ends = ends(DATA_PAGES, Mode::Mirrored);
        // Every second page is used, so no two merge.
        let numbers: Vec<u64> =
            (0..pages as u64).map(|page| DATA_PAGES as u64 + 1 + page * 2 % 64).collect();
        let mut header = Vec::new();
        let range = GpaRange { byte_count: pages as u32 * 4096, byte_offset: 0, pages: &numbers };
        gpa_direct_header(&[range], &mut header);
        let mut buffer = GuestBuffer::new(ends.memory.ram().clone());
        let payload = [0_u8; 48];
        group.bench_function(BenchmarkId::new("write_parse", pages), |b| {
            b.iter(|| {
                let mut batch = ends.outgoing.batch().unwrap();
                let pieces: [&[u8]; 1] = [&payload];
                batch
                    .write(
                        &OutPacket::request(1, &pieces).with_header(PacketKind::GpaDirect, &header),
                    )
                    .unwrap();
                black_box(batch.commit());
                let mut batch = ends.incoming.batch().unwrap();
                let packet = batch.next().unwrap().unwrap();
                packet.gpa_direct(&mut buffer).unwrap();
                black_box(packet.read::<[u8; 48]>());
                black_box(batch.commit());
                black_box(buffer.len());
            });
        });
    }
    group.finish();
}

/// Sends `packets` packets from one thread to another; both spin when they must wait. Returns the
/// total time.
fn across(packets: u64, size: usize, batch_of: usize) -> Duration {
    let Ends { memory: _memory, mut outgoing, mut incoming } = ends(DATA_PAGES, Mode::Mirrored);
    let payload = vec![1_u8; size];
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut left = packets;
            while left != 0 {
                let mut batch = outgoing.batch().unwrap();
                for _ in 0..(batch_of as u64).min(left) {
                    match batch.write(&OutPacket::in_band(left, &[&payload])) {
                        Ok(()) => left -= 1,
                        Err(WriteError::Full { .. }) => break,
                        Err(error) => panic!("{error}"),
                    }
                }
                black_box(batch.commit());
            }
        });
        let mut to = vec![0_u8; size];
        let mut left = packets;
        while left != 0 {
            let mut batch = incoming.batch().unwrap();
            let mut taken = 0;
            while let Some(packet) = batch.next().unwrap() {
                black_box(packet.read_payload(&mut to));
                taken += 1;
            }
            left -= taken;
            black_box(batch.commit());
            if taken == 0 {
                spin_loop();
            }
        }
    });
    start.elapsed()
}

fn two_threads(c: &mut Criterion) {
    let mut group = c.benchmark_group("two_threads");
    group.sample_size(10);
    for size in [16, 256, 4096] {
        group.bench_function(BenchmarkId::new("one_per_commit", size), |b| {
            b.iter_custom(|n| across(n, size, 1));
        });
        group.bench_function(BenchmarkId::new("batches_of_16", size), |b| {
            b.iter_custom(|n| across(n, size, BATCH));
        });
    }
    group.finish();
}

/// The minimum for two threads: slots of 64 bytes, two counters on cache lines of their own, no
/// descriptors, no signals, no checks.
struct Bare {
    slots: Vec<[AtomicU64; 8]>,
    head: Line,
    tail: Line,
}

#[repr(align(128))]
struct Line(AtomicUsize);

fn bare_across(messages: u64) -> Duration {
    let slots = (0..1024).map(|_| std::array::from_fn(|_| AtomicU64::new(0))).collect();
    let bare = Bare { slots, head: Line(AtomicUsize::new(0)), tail: Line(AtomicUsize::new(0)) };
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            for at in 0..messages as usize {
                while at - bare.tail.0.load(Ordering::Acquire) >= bare.slots.len() {
                    spin_loop();
                }
                let slot = &bare.slots[at % bare.slots.len()];
                slot[0].store(at as u64, Ordering::Relaxed);
                slot[1].store(at as u64, Ordering::Relaxed);
                bare.head.0.store(at + 1, Ordering::Release);
            }
        });
        for at in 0..messages as usize {
            while bare.head.0.load(Ordering::Acquire) == at {
                spin_loop();
            }
            let slot = &bare.slots[at % bare.slots.len()];
            black_box(slot[0].load(Ordering::Relaxed) + slot[1].load(Ordering::Relaxed));
            bare.tail.0.store(at + 1, Ordering::Release);
        }
    });
    start.elapsed()
}

fn limits(c: &mut Criterion) {
    let mut group = c.benchmark_group("limit");
    for size in [16, 256, 4096, 65536] {
        // The copies of a ring: in at a moving offset of 60 KiB (or the size of the payload), and
        // out from there.
        let mut area = vec![0_u8; (DATA_PAGES * 4096).max(2 * size)];
        let (from, mut to) = (vec![1_u8; size], vec![0_u8; size]);
        let mut at = 0;
        group.bench_function(BenchmarkId::new("memcpy_in_out", size), |b| {
            b.iter(|| {
                let place = &mut area[at..at + size];
                place.copy_from_slice(black_box(&from));
                to.copy_from_slice(black_box(place));
                black_box(&mut to);
                at = if at + 3 * size + 24 <= area.len() { at + size + 24 } else { 0 };
            });
        });
    }
    let word = AtomicU64::new(0);
    group.bench_function("two_locked_exchanges", |b| {
        b.iter(|| {
            word.store(1, Ordering::SeqCst);
            word.store(2, Ordering::SeqCst);
        });
    });
    group.sample_size(10);
    group.bench_function("spsc_two_threads", |b| b.iter_custom(bare_across));
    group.finish();
}

fn configured() -> Criterion {
    Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
}

criterion_group! {
    name = benches;
    config = configured();
    targets = limits, one_thread, small_ring, gpa_direct, two_threads
}
criterion_main!(benches);
