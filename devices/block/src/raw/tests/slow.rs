//! Slow calls: the thread that makes them, and the requests that continue during the call.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use vmm_sys_util::tempfile::TempFile;

use super::super::limits::MAX_CLEARING;
use super::super::*;
use super::{image, modes, run_helper};
use crate::conformance::Gate;
use crate::conformance::{one, run, wait};
use crate::{IoBuffer, Operation, Request};

/// Returns a file that is used like a block device. Its discards wait at the gate and then succeed.
fn device(io: IoMode) -> (TempFile, RawFile, Arc<Gate>) {
    let file = image(1 << 20);
    let gate = Arc::new(Gate::closed());
    let options = RawOptions { io, ..RawOptions::default() };
    let raw = RawFile::open_as_slow_device(file.as_path(), &options, &gate).unwrap();
    (file, raw, gate)
}

fn modes_here() -> Vec<IoMode> {
    let uring = modes::uring_is_here().then_some(IoMode::Uring);
    uring.into_iter().chain([IoMode::Threads]).collect()
}

fn discard(tag: u64) -> Box<Request> {
    let operation = Operation::Discard;
    Request::new(tag, operation, 0, 4096, IoBuffer::empty())
}

#[test]
fn test_discard_of_a_device_is_made_by_another_thread_and_delays_nothing() {
    for io in modes_here() {
        let (_file, raw, gate) = device(io);
        let mut queue = raw.queue().unwrap();
        queue.submit(&mut vec![discard(1)]);
        let callers = gate.wait_for(1);
        assert!(!callers.contains(&thread::current().id()), "{io:?}");
        for operation in [Operation::Write { fua: false }, Operation::Read, Operation::Flush] {
            let bytes = if operation == Operation::Flush { vec![] } else { vec![1; 512] };
            one(&mut *queue, operation, 0, bytes).unwrap();
        }
        gate.open();
        // The second round sets the event again.
        for id in [1, 2] {
            let mut done = Vec::new();
            while done.is_empty() {
                wait(queue.event().unwrap());
                queue.poll(&mut done);
            }
            assert_eq!(
                (done.len(), done[0].request.tag, done[0].result),
                (1, id, Ok(())),
                "{io:?}"
            );
            if id == 1 {
                queue.submit(&mut vec![discard(2)]);
            }
        }
    }
}

#[test]
fn test_discards_leave_threads_to_reads_and_writes() {
    for io in modes_here() {
        let (_file, raw, gate) = device(io);
        let mut queue = raw.queue().unwrap();
        queue.submit(&mut (0..32).map(discard).collect());
        gate.wait_for(MAX_CLEARING);
        // Any further thread would have arrived by then.
        for _ in 0..100 {
            one(&mut *queue, Operation::Write { fua: true }, 0, vec![1; 512]).unwrap();
        }
        assert_eq!(gate.wait_for(0).len(), MAX_CLEARING, "{io:?}");
        gate.open();
        let mut done = Vec::new();
        while done.len() < 32 {
            wait(queue.event().unwrap());
            queue.poll(&mut done);
        }
        assert!(done.iter().all(|done| done.result.is_ok()));
    }
}

#[test]
fn test_queue_dropped_during_a_discard_waits_for_nothing_and_the_image_stays_locked() {
    for io in modes_here() {
        let (file, raw, gate) = device(io);
        let mut queue = raw.queue().unwrap();
        queue.submit(&mut vec![discard(1), discard(2)]);
        gate.wait_for(1);
        // The call still waits. The test passes if this returns.
        drop((queue, raw));
        let again = RawFile::open(file.as_path(), false);
        assert!(matches!(again, Err(OpenError::Locked { .. })), "{io:?}: {again:?}");
        gate.open();
    }
}

#[test]
fn test_discards_of_devices_conform_with_other_requests_in_one_batch() {
    for io in modes_here() {
        let (_file, raw, gate) = device(io);
        gate.open();
        let mut queue = raw.queue().unwrap();
        for round in 0..50 {
            let write = |id| {
                Request::new(
                    id,
                    Operation::Write { fua: false },
                    512,
                    512,
                    IoBuffer::from_vec(vec![round; 512]),
                )
            };
            let done = run(&mut *queue, vec![discard(1), write(2), discard(3), write(4)]);
            assert!(done.iter().all(|done| done.result.is_ok()), "{io:?}");
        }
    }
}

/// Returns an image whose writes wait at the gate.
fn stalled() -> (TempFile, RawFile, Arc<Gate>) {
    let file = image(1 << 20);
    let gate = Arc::new(Gate::closed());
    let mut raw = RawFile::open(file.as_path(), false).unwrap();
    Arc::get_mut(&mut raw.image).unwrap().write_gate = Some(Arc::clone(&gate));
    (file, raw, gate)
}

fn write(tag: u64) -> Box<Request> {
    let operation = Operation::Write { fua: false };
    Request::new(tag, operation, 0, 512, IoBuffer::from_vec(vec![tag as u8; 512]))
}

#[test]
fn test_write_that_stalls_delays_no_other_request_of_its_thread() {
    let (_file, raw, gate) = stalled();
    let other = image(1 << 20);
    let other = RawFile::open(other.as_path(), false).unwrap();
    let (mut queue, mut other) = (raw.queue().unwrap(), other.queue().unwrap());
    queue.submit(&mut vec![write(1)]);
    assert!(!gate.wait_for(1).contains(&thread::current().id()));
    one(&mut *queue, Operation::Read, 0, vec![1; 512]).unwrap();
    one(&mut *queue, Operation::Flush, 0, vec![]).unwrap();
    for fua in [false, true] {
        one(&mut *other, Operation::Write { fua }, 0, vec![1; 512]).unwrap();
    }
    gate.open();
    let mut done = Vec::new();
    while done.is_empty() {
        wait(queue.event().unwrap());
        queue.poll(&mut done);
    }
    assert_eq!((done.len(), done[0].request.tag, done[0].result), (1, 1, Ok(())));
}

#[test]
fn test_queue_dropped_during_a_write_waits_for_the_memory_of_the_write() {
    let (_file, raw, gate) = stalled();
    let mut queue = raw.queue().unwrap();
    // The image has fewer threads than these writes: some are never begun.
    queue.submit(&mut (0..32).map(write).collect());
    gate.wait_for(1);
    let opened = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&opened);
    let dropper = thread::spawn(move || {
        drop(queue);
        seen.load(Ordering::Acquire)
    });
    opened.store(true, Ordering::Release);
    gate.open();
    assert!(dropper.join().unwrap(), "the drop did not wait");
}

#[test]
fn test_writes_to_the_page_cache_wait_in_no_thread_of_a_ring() {
    if modes::uring_is_here() {
        run_helper("slow::test_ring_writes_helper_process", WRITES, "1");
    }
}

const WRITES: &str = "SYNTHVM_STORAGE_TEST_RING_WRITES";

/// The process of the test before, and no test of its own: its threads are counted.
#[test]
fn test_ring_writes_helper_process() {
    if std::env::var_os(WRITES).is_none() {
        return;
    }
    let file = image(1 << 20);
    let options = RawOptions { io: IoMode::Uring, ..RawOptions::default() };
    let raw = RawFile::open_with(file.as_path(), &options).unwrap();
    let mut queue = raw.queue().unwrap();
    for fua in [false, true] {
        for _ in 0..4 {
            let writes = (0..32).map(|tag| {
                let mut request = write(tag);
                request.operation = Operation::Write { fua };
                request
            });
            let done = run(&mut *queue, writes.collect());
            assert!(done.iter().all(|done| done.result.is_ok()));
        }
    }
    // An idle thread of a ring lives for five seconds.
    let threads: Vec<String> = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap())
        .collect();
    let of_rings = threads.iter().any(|name| name.starts_with("iou-wrk"));
    std::process::exit(if of_rings { 43 } else { 42 });
}
