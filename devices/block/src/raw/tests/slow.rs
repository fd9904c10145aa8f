//! Slow calls: the thread that makes them, and the requests that continue during the call.

use std::thread;

use vmm_sys_util::tempfile::TempFile;

use super::super::limits::MAX_CLEARING;
use super::super::*;
use super::{image, modes};
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
