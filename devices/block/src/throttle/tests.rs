//! Tests of the limits with a simulated clock, and of the queues by the requests that they let
//! through.

use std::num::NonZeroU64;
use std::sync::Arc;

use super::bucket::Buckets;
use super::*;
use crate::conformance::{CAPACITY, check, check_read_only, pattern, run, wait};
use crate::{IoBuffer, Operation, RamDisk};

const SECOND: u64 = 1_000_000_000;
const WRITE: Operation = Operation::Write { fua: false };

fn rate(per_second: u64, burst: u64) -> Option<Rate> {
    Some(Rate { per_second: NonZeroU64::new(per_second).unwrap(), burst })
}

fn request(tag: u64, operation: Operation, length: u64) -> Box<Request> {
    let moved = matches!(operation, Operation::Read | Operation::Write { .. });
    let bytes = if moved { pattern(tag, length as usize) } else { vec![] };
    let offset = if moved { tag * 4096 } else { 0 };
    Request::new(tag, operation, offset, length, IoBuffer::from_vec(bytes))
}

/// Returns the start of each of `count` requests that all arrive at `now`.
fn starts(
    buckets: &mut Buckets,
    operation: Operation,
    length: u64,
    count: usize,
    now: u64,
) -> Vec<u64> {
    (0..count).map(|_| buckets.reserve(&request(0, operation, length), now)).collect()
}

#[test]
fn test_requests_go_at_their_rate_after_the_burst() {
    let mut buckets = Buckets::new(Limits { requests: rate(100, 3), ..Limits::default() });
    // The buckets are full at first: the burst starts, and one request that goes into debt.
    let now = 10 * SECOND;
    let all = starts(&mut buckets, Operation::Read, 4096, 7, now);
    let after: Vec<u64> = all.iter().map(|start| (start - now) / 1_000_000).collect();
    assert_eq!(after, [0, 0, 0, 0, 10, 20, 30]);
    // A long pause accumulates one burst, not more.
    let now = 100 * SECOND;
    let nowait =
        starts(&mut buckets, WRITE, 512, 10, now).iter().filter(|&&start| start == now).count();
    assert_eq!(nowait, 4);
}

#[test]
fn test_long_run_rate_is_exact_for_requests_and_bytes() {
    let limits =
        Limits { requests: rate(1000, 100), bytes: rate(1 << 20, 1 << 16), ..Limits::default() };
    // 4 KiB each: 256 a second by bytes.
    let last = *starts(&mut Buckets::new(limits), Operation::Read, 4096, 2560, 0).last().unwrap();
    assert!((9 * SECOND..10 * SECOND).contains(&last), "{last}");
    // 512 bytes each: 1000 a second by requests.
    let last = *starts(&mut Buckets::new(limits), Operation::Read, 512, 10_000, 0).last().unwrap();
    assert!((9 * SECOND..10 * SECOND).contains(&last), "{last}");
}

#[test]
fn test_request_larger_than_all_limits_goes_and_is_paid_for_after() {
    let mut buckets = Buckets::new(Limits { written_bytes: rate(1 << 20, 0), ..Limits::default() });
    let all = starts(&mut buckets, WRITE, 8 << 20, 3, SECOND);
    assert_eq!(all, [SECOND, 9 * SECOND, 17 * SECOND]);
}

#[test]
fn test_limits_of_one_kind_leave_the_other_alone_and_flushes_are_free() {
    let limits = Limits {
        reads: rate(1, 0),
        written_bytes: rate(512, 0),
        read_bytes: rate(1, 0),
        ..Limits::default()
    };
    let mut buckets = Buckets::new(limits);
    starts(&mut buckets, Operation::Read, 4096, 5, 0);
    assert_eq!(starts(&mut buckets, WRITE, 512, 2, 0), [0, SECOND]);
    assert_eq!(starts(&mut buckets, Operation::Flush, 0, 3, 0), [0, 0, 0]);
    // Discards and zeroes are writes that move no bytes.
    assert_eq!(starts(&mut buckets, Operation::Discard, 1 << 40, 2, 0), [0, 0]);
    let mut buckets = Buckets::new(Limits { writes: rate(1, 0), ..Limits::default() });
    assert_eq!(
        starts(&mut buckets, Operation::WriteZeroes { unmap: true }, 1 << 40, 2, 0),
        [0, SECOND]
    );
}

#[test]
fn test_extreme_limits_do_not_overflow() {
    for per_second in [1, u64::MAX] {
        let limits = Limits { bytes: rate(per_second, u64::MAX), ..Limits::default() };
        let mut buckets = Buckets::new(limits);
        starts(&mut buckets, Operation::Read, 1 << 20, 100, u64::MAX - 1);
    }
}

fn ram() -> Arc<RamDisk> {
    Arc::new(RamDisk::new(CAPACITY).unwrap())
}

#[test]
fn test_throttle_conforms_without_limits_and_with_wide_ones() {
    check(|| Arc::new(Throttle::new(ram(), Limits::default())));
    let wide =
        Limits { requests: rate(200_000, 10), bytes: rate(4 << 30, 1 << 20), ..Limits::default() };
    check(|| Arc::new(Throttle::new(ram(), wide)));
    check_read_only(|| {
        let disk =
            RamDisk::new(CAPACITY).unwrap().with_geometry(|geometry| geometry.read_only = true);
        Arc::new(Throttle::new(Arc::new(disk), wide))
    });
}

/// Returns a limit that permits hardly any request.
fn one_a_second() -> Limits {
    Limits { requests: Some(Rate { per_second: NonZeroU64::MIN, burst: 0 }), ..Limits::default() }
}

#[test]
fn test_throttled_requests_wait_in_order_and_go_when_the_limits_do() {
    let slow = Limits { bytes: rate(1, 0), ..Limits::default() };
    let throttle = Throttle::new(ram(), slow);
    let mut queue = throttle.queue().unwrap();
    let mut done = Vec::new();
    queue.submit(&mut (0..4).map(|id| request(id, WRITE, 4096)).collect());
    queue.submit(&mut vec![request(4, Operation::Flush, 0)]);
    queue.poll(&mut done);
    assert_eq!(
        done.iter().map(|done| done.request.tag).collect::<Vec<_>>(),
        [0],
        "the first one owes more than an hour"
    );
    let mut other = throttle.queue().unwrap();
    other.submit(&mut vec![request(9, Operation::Read, 512)]);
    other.poll(&mut done);
    assert_eq!(done.len(), 1, "the limits hold for all queues together");
    throttle.set_limits(Limits::default());
    wait(queue.event().unwrap());
    queue.poll(&mut done);
    assert_eq!(done.iter().map(|done| done.request.tag).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    wait(other.event().unwrap());
    other.poll(&mut done);
    assert_eq!(done.last().map(|done| done.request.tag), Some(9));
    assert_eq!(throttle.limits(), Limits::default());
}

#[test]
fn test_throttle_counts_what_had_to_wait_once_it_goes() {
    let throttle = Throttle::new(ram(), Limits { bytes: rate(1, 0), ..Limits::default() });
    let mut queue = throttle.queue().unwrap();
    let mut done = Vec::new();
    queue.submit(&mut (0..4).map(|id| request(id, WRITE, 4096)).collect());
    queue.submit(&mut vec![request(4, Operation::Flush, 0)]);
    assert_eq!(
        throttle.stats(),
        ThrottleStats::default(),
        "the first one went at once, the others have not gone"
    );
    // Times are counted in whole microseconds.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_micros(10) {
        std::hint::spin_loop();
    }
    throttle.set_limits(Limits::default());
    queue.poll(&mut done);
    let stats = throttle.stats();
    assert_eq!((done.len(), stats.delayed_requests, stats.delayed_bytes), (5, 4, 3 * 4096));
    assert!(stats.delayed_us >= 40, "{stats:?}");
    // Without limits nothing waits.
    run(&mut *queue, vec![request(5, WRITE, 4096)]);
    assert_eq!(throttle.stats(), stats);
}

#[test]
fn test_throttled_queue_that_has_nothing_to_do_sleeps() {
    let throttle = Throttle::new(ram(), Limits { requests: rate(1000, 0), ..Limits::default() });
    let mut queue = throttle.queue().unwrap();
    run(&mut *queue, (0..20).map(|id| request(id, WRITE, 512)).collect());
    let mut poll = libc::pollfd { fd: queue.event().unwrap(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid pollfd of an open descriptor.
    assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 0) }, 0, "no event without a request");
}

#[test]
fn test_throttled_queue_is_dropped_with_requests_waiting() {
    let throttle = Throttle::new(ram(), one_a_second());
    let mut queue = throttle.queue().unwrap();
    queue.submit(&mut (0..100).map(|id| request(id, WRITE, 4096)).collect());
    drop(queue);
    throttle.set_limits(Limits::default());
    let mut queue = throttle.queue().unwrap();
    assert_eq!(run(&mut *queue, vec![request(1, WRITE, 4096)])[0].result, Ok(()));
}
