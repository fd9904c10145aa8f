//! GPADL create through the whole host: messages in, CREATED out. Limits measured in the same run:
//! copying the page list, and filling a table of addresses from it.
//!
//! `cargo bench -p vmbus-host`

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmbus_gpadl::{GpadlKey, GuestRam, ReleaseSink};
use vmbus_host::Offer;
use vmbus_host::core::{Action, Core};
use vmbus_protocol::message::{
    GpadlBody, GpadlHeader, GpadlTeardown, InitiateContact, MessageType,
};
use vmbus_protocol::{Guid, MessageBuffer, Version, guid};
use zerocopy::little_endian::{U16, U32, U64};

/// Pages of guest memory in every map, spread over its regions.
const RAM_PAGES: u64 = 1 << 16;
/// Page numbers in a header and in a body.
const HEADER_WORDS: usize = 27;
const BODY_WORDS: usize = 28;
/// Any handle.
const GPADL: u32 = 0xE1E10;

struct Nobody;

impl ReleaseSink for Nobody {
    fn gpadl_released(&self, _: GpadlKey) {}
}

#[derive(Clone, Copy)]
enum Order {
    Scattered,
    Half,
    Contiguous,
}

/// RAM of `regions` equal regions with holes between them.
fn ram(regions: u64) -> GuestRam {
    let bytes = usize::try_from(RAM_PAGES / regions * 4096).unwrap();
    let ranges: Vec<_> = (0..regions)
        .map(|index| (GuestAddress(region_start(index, regions) * 4096), bytes))
        .collect();
    GuestRam::new(GuestMemoryMmap::from_ranges(&ranges).unwrap()).unwrap()
}

fn region_start(index: u64, regions: u64) -> u64 {
    index * (RAM_PAGES / regions + 512)
}

fn pages(count: u64, order: Order, regions: u64) -> Vec<u64> {
    let per_region = RAM_PAGES / regions;
    let scatter = |index: u64| index.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
    (0..count)
        .map(|index| {
            let page = match order {
                Order::Scattered => scatter(index) % RAM_PAGES,
                Order::Half => scatter(index / 2) % (RAM_PAGES / 2) * 2 + index % 2,
                Order::Contiguous => index,
            };
            region_start(page / per_region, regions) + page % per_region
        })
        .collect()
}

fn words(pages: &[u64]) -> Vec<u8> {
    let head = u64::try_from(pages.len()).unwrap() * 4096;
    std::iter::once(&head).chain(pages).flat_map(|word| word.to_le_bytes()).collect()
}

fn create_messages(relid: u32, pages: &[u64]) -> Vec<MessageBuffer> {
    let data = words(pages);
    let (first, rest) = data.split_at(data.len().min(HEADER_WORDS * 8));
    let header = GpadlHeader {
        relid: U32::new(relid),
        gpadl: U32::new(GPADL),
        range_buflen: U16::new(u16::try_from(data.len()).unwrap()),
        range_count: U16::new(1),
    };
    let body = GpadlBody { message_number: U32::ZERO, gpadl: U32::new(GPADL) };
    let mut messages = vec![MessageBuffer::with_data(MessageType::GpadlHeader, &header, first)];
    messages.extend(
        rest.chunks(BODY_WORDS * 8)
            .map(|part| MessageBuffer::with_data(MessageType::GpadlBody, &body, part)),
    );
    messages
}

/// A connected core with one offered channel.
fn connected(ram: GuestRam) -> (Core, u32, Vec<Action>) {
    let mut core = Core::new(ram, 1, Arc::new(Nobody));
    core.offer(Offer::new(guid::class::SCSI, Guid::default(), 0)).unwrap();
    let contact = InitiateContact {
        version: U32::new(Version::V5_3.word()),
        target_vp: U32::ZERO,
        target_info: [2, 0, 0, 0, 0, 0, 0, 0],
        monitor_page1: U64::ZERO,
        monitor_page2: U64::ZERO,
    };
    core.message(4, MessageBuffer::new(MessageType::InitiateContact, &contact).as_bytes()).unwrap();
    core.message(4, MessageBuffer::bare(MessageType::RequestOffers).as_bytes()).unwrap();
    let mut actions = Vec::new();
    core.take_actions(&mut actions);
    (core, 1, actions)
}

fn create(core: &mut Core, messages: &[MessageBuffer], actions: &mut Vec<Action>) {
    for message in messages {
        core.message(4, message.as_bytes()).unwrap();
    }
    actions.clear();
    core.take_actions(actions);
    assert_eq!(actions.len(), 1, "one CREATED");
}

fn teardown(core: &mut Core, relid: u32, actions: &mut Vec<Action>) {
    let body = GpadlTeardown { relid: U32::new(relid), gpadl: U32::new(GPADL) };
    core.message(4, MessageBuffer::new(MessageType::GpadlTeardown, &body).as_bytes()).unwrap();
    actions.clear();
    core.take_actions(actions);
    assert_eq!(actions.len(), 1, "one TORNDOWN");
}

fn bench_create(criterion: &mut Criterion) {
    for regions in [1, 2, 16] {
        for (name, order) in [
            ("scattered", Order::Scattered),
            ("half", Order::Half),
            ("contiguous", Order::Contiguous),
        ] {
            let mut group =
                criterion.benchmark_group(format!("gpadl_create/{name}/{regions}_regions"));
            for count in [1_u64, 16, 512, 4096, 8190] {
                let (mut core, relid, mut actions) = connected(ram(regions));
                let messages = create_messages(relid, &pages(count, order, regions));
                group.throughput(Throughput::Elements(count));
                group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
                    bencher.iter_custom(|rounds| {
                        let mut spent = std::time::Duration::ZERO;
                        for _ in 0..rounds {
                            let start = std::time::Instant::now();
                            create(&mut core, &messages, &mut actions);
                            spent += start.elapsed();
                            teardown(&mut core, relid, &mut actions);
                        }
                        spent
                    });
                });
            }
            group.finish();
        }
    }
}

fn bench_teardown(criterion: &mut Criterion) {
    let (mut core, relid, mut actions) = connected(ram(2));
    let messages = create_messages(relid, &pages(512, Order::Scattered, 2));
    criterion.bench_function("gpadl_teardown/512", |bencher| {
        bencher.iter_custom(|rounds| {
            let mut spent = std::time::Duration::ZERO;
            for _ in 0..rounds {
                create(&mut core, &messages, &mut actions);
                let start = std::time::Instant::now();
                teardown(&mut core, relid, &mut actions);
                spent += start.elapsed();
            }
            spent
        });
    });
}

fn bench_limits(criterion: &mut Criterion) {
    let list = pages(4096, Order::Scattered, 2);
    let mut copy = vec![0_u64; list.len()];
    let mut group = criterion.benchmark_group("limit");
    group.throughput(Throughput::Elements(4096));
    group.bench_function("memcpy_of_the_list", |bencher| {
        bencher.iter(|| copy.copy_from_slice(black_box(&list)));
    });
    group.bench_function("address_table", |bencher| {
        bencher.iter(|| {
            for (to, from) in copy.iter_mut().zip(black_box(&list)) {
                *to = 0x7F00_0000_0000 + (from << 12);
            }
            black_box(&copy);
        });
    });
    group.finish();
}

criterion_group!(benches, bench_create, bench_teardown, bench_limits);
criterion_main!(benches);
