//! GPADL create through the whole host: messages in, CREATED out. Limits measured in the same run:
//! copying the page list, and filling a table of addresses from it.
//!
//! `cargo bench -p vmbus-loopback --bench gpadl`

#[path = "bus/server.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod server;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use server::{Order, Server, create_messages, pages, ram};

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
                let mut server = Server::new(ram(regions));
                let messages = create_messages(&pages(count, order, regions));
                group.throughput(Throughput::Elements(count));
                group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
                    bencher.iter_custom(|rounds| {
                        let mut spent = Duration::ZERO;
                        for _ in 0..rounds {
                            let start = Instant::now();
                            server.create(&messages);
                            spent += start.elapsed();
                            server.teardown();
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
    let mut server = Server::new(ram(2));
    let messages = create_messages(&pages(512, Order::Scattered, 2));
    criterion.bench_function("gpadl_teardown/512", |bencher| {
        bencher.iter_custom(|rounds| {
            let mut spent = Duration::ZERO;
            for _ in 0..rounds {
                server.create(&messages);
                let start = Instant::now();
                server.teardown();
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
