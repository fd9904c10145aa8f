//! Tests of formats and queues together, with a format that a test controls.

mod fake;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use synthvm_block::conformance::{one, over, run, wait};
use synthvm_block::{
    Backend, Completion, Fault, Faulty, IoBuffer, IoError, Operation, Queue, RamDisk, Request,
};

use super::Mapped;
use super::job::MAX_EXTENTS;
use fake::{BLOCK, CAPACITY, Fake, Log, SLOW};

fn request(tag: u64, operation: Operation, offset: u64, length: u64) -> Box<Request> {
    let moves = matches!(operation, Operation::Read | Operation::Write { .. });
    let bytes = vec![0xEE; if moves { length as usize } else { 0 }];
    Request::new(tag, operation, offset, length, IoBuffer::from_vec(bytes))
}

/// Returns the requests that have completed.
fn poll(queue: &mut dyn Queue) -> Vec<Completion> {
    let mut done = Vec::new();
    queue.poll(&mut done);
    done
}

/// Waits for the next completed requests.
fn next(queue: &mut dyn Queue) -> Vec<Completion> {
    loop {
        wait(queue.event().unwrap());
        let done = poll(queue);
        if !done.is_empty() {
            return done;
        }
    }
}

/// Waits until `count` requests have completed.
fn all(queue: &mut dyn Queue, count: usize) -> Vec<Completion> {
    let mut done = Vec::new();
    while done.len() < count {
        done.extend(next(queue));
    }
    done
}

/// A discard whose lookup takes 1,000 steps.
fn long_discard(tag: u64) -> Box<Request> {
    request(tag, Operation::Discard, SLOW, 1000 * BLOCK)
}

/// Closes the gate of `fake`, submits `requests`, and waits until the first lookup is at the gate.
fn hold(fake: &Fake, queue: &mut dyn Queue, mut requests: Vec<Box<Request>>) {
    fake.gate.close();
    queue.submit(&mut requests);
    fake.gate.wait_for(1);
}

/// Checks that a read's lookup was one of the first steps.
fn assert_read_was_early(fake: &Fake) {
    let log = fake.log();
    assert!(log.iter().position(|entry| *entry == Log::Locate).unwrap() <= 2, "{:?}", &log[..10]);
}

fn opened(fake: Fake) -> (Arc<Fake>, Mapped) {
    let fake = Arc::new(fake);
    (Arc::clone(&fake), Mapped::new(fake))
}

#[test]
fn test_lookup_that_blocks_delays_no_other_request_of_its_queue() {
    let (fake, mapped) = opened(Fake::default());
    let mut queue = mapped.queue().unwrap();
    hold(
        &fake,
        &mut *queue,
        vec![request(1, Operation::Read, SLOW, 512), request(2, Operation::Read, 0, 512)],
    );
    assert_eq!(poll(&mut *queue).iter().map(|done| done.request.tag).collect::<Vec<_>>(), [2]);
    queue.submit(&mut vec![request(3, Operation::Write { fua: true }, 512, 512)]);
    assert_eq!(poll(&mut *queue)[0].result, Ok(()));
    fake.gate.open();
    let done = next(&mut *queue);
    assert_eq!((done.len(), done[0].request.tag, done[0].result), (1, 1, Ok(())));
}

#[test]
fn test_lookup_of_many_steps_lets_other_queues_go_in_between() {
    let (fake, mapped) = opened(Fake::default());
    let (mut long, mut short) = (mapped.queue().unwrap(), mapped.queue().unwrap());
    hold(&fake, &mut *long, vec![long_discard(1)]);
    short.submit(&mut vec![request(2, Operation::Read, SLOW, 512)]);
    fake.gate.open();
    assert_eq!(next(&mut *short)[0].result, Ok(()));
    assert_eq!(next(&mut *long)[0].result, Ok(()));
    assert_eq!(fake.log().iter().filter(|entry| **entry == Log::Clear).count(), 1000);
    assert_read_was_early(&fake);
}

#[test]
fn test_queue_with_several_long_lookups_lets_other_queues_go_in_between() {
    let (fake, mapped) = opened(Fake::default());
    let (mut long, mut short) = (mapped.queue().unwrap(), mapped.queue().unwrap());
    hold(&fake, &mut *long, vec![long_discard(1)]);
    long.submit(&mut vec![long_discard(2)]);
    short.submit(&mut vec![request(3, Operation::Read, SLOW, 512)]);
    fake.gate.open();
    assert_eq!(next(&mut *short)[0].result, Ok(()));
    assert_read_was_early(&fake);
}

#[test]
fn test_lookup_of_many_steps_lets_its_own_queue_go_in_between() {
    let (fake, mapped) = opened(Fake::default());
    let mut queue = mapped.queue().unwrap();
    hold(&fake, &mut *queue, vec![long_discard(1)]);
    queue.submit(&mut vec![request(2, Operation::Read, SLOW, 512)]);
    fake.gate.open();
    all(&mut *queue, 2);
    assert_read_was_early(&fake);
}

#[test]
fn test_queue_dropped_while_a_lookup_blocks_returns_and_its_other_steps_never_run() {
    let (fake, mapped) = opened(Fake::default());
    let (mut long, mut other) = (mapped.queue().unwrap(), mapped.queue().unwrap());
    hold(&fake, &mut *long, vec![long_discard(1)]);
    // The test passes if this returns, although the step is still blocked.
    drop(long);
    fake.gate.open();
    assert!(one(&mut *other, Operation::Read, SLOW, vec![0; 512]).is_ok());
    assert_eq!(fake.log().iter().filter(|entry| **entry == Log::Clear).count(), 1);
}

#[test]
fn test_backend_and_queues_dropped_leave_no_thread_behind() {
    let (fake, mapped) = opened(Fake::default());
    let mut queue = mapped.queue().unwrap();
    assert!(one(&mut *queue, Operation::Read, SLOW, vec![0; 512]).is_ok());
    drop(mapped);
    assert!(one(&mut *queue, Operation::Read, SLOW, vec![0; 512]).is_ok());
    drop(queue);
    // The thread had a reference, too.
    assert_eq!(Arc::strong_count(&fake), 1);
}

#[test]
fn test_lookups_that_need_a_barrier_share_one() {
    let (fake, mapped) = opened(Fake { needs_barrier: true, ..Fake::default() });
    let (mut first, mut second) = (mapped.queue().unwrap(), mapped.queue().unwrap());
    let write = Operation::Write { fua: false };
    hold(
        &fake,
        &mut *first,
        (0..16).map(|id| request(id, write, SLOW + id * BLOCK, 512)).collect(),
    );
    second.submit(&mut (20..36).map(|id| request(id, write, SLOW + id * BLOCK, 512)).collect());
    fake.gate.open();
    for queue in [&mut first, &mut second] {
        assert!(all(&mut **queue, 16).iter().all(|done| done.result.is_ok()));
    }
    assert_eq!(fake.log().iter().filter(|entry| **entry == Log::Barrier).count(), 1);
}

#[test]
fn test_barrier_that_fails_fails_all_that_waited_for_it_and_no_others() {
    let (fake, mapped) = opened(Fake { needs_barrier: true, ..Fake::default() });
    let mut queue = mapped.queue().unwrap();
    fake.fail_barrier.store(true, Ordering::Relaxed);
    let write = Operation::Write { fua: false };
    let failed = run(&mut *queue, (0..4).map(|id| request(id, write, SLOW, 512)).collect());
    assert!(failed.iter().all(|done| done.result == Err(IoError::Os(libc::EIO))));
    assert!(one(&mut *queue, Operation::Read, SLOW, vec![0; 512]).is_ok());
    fake.fail_barrier.store(false, Ordering::Relaxed);
    assert!(one(&mut *queue, write, SLOW, vec![0; 512]).is_ok());
}

#[test]
fn test_range_with_more_extents_than_one_answer_has_is_cleared_in_parts() {
    let (fake, mapped) = opened(Fake::default());
    let mut queue = mapped.queue().unwrap();
    let blocks = 2 * MAX_EXTENTS as u64 + 500;
    one(&mut *queue, Operation::Write { fua: false }, SLOW, vec![7; (blocks * BLOCK) as usize])
        .unwrap();
    let zeroes = Operation::WriteZeroes { unmap: false };
    assert_eq!(over(&mut *queue, zeroes, SLOW, (blocks - 1) * BLOCK), Ok(()));
    let seen = one(&mut *queue, Operation::Read, SLOW, vec![1; (blocks * BLOCK) as usize]).unwrap();
    let (zeroed, kept) = seen.split_at(((blocks - 1) * BLOCK) as usize);
    assert!(zeroed.iter().all(|&byte| byte == 0) && kept.iter().all(|&byte| byte == 7));
    let log = fake.log();
    let longest = log.split(|entry| *entry == Log::Zeroes).map(<[Log]>::len).max();
    assert!(longest.unwrap() <= MAX_EXTENTS, "{longest:?} lookups before the first is zeroed");
}

#[test]
fn test_bytes_from_memory_are_copied_and_counted() {
    let bytes: Arc<[u8]> = (0..2048_u32).map(|at| (at / 7) as u8).collect();
    let (_fake, mapped) = opened(Fake { memory: Some(Arc::clone(&bytes)), ..Fake::default() });
    let mut queue = mapped.queue().unwrap();
    // The bytes alone, and between bytes of a file.
    let mut done = run(&mut *queue, vec![request(1, Operation::Read, SLOW + 512, 1024)]).remove(0);
    assert_eq!((done.result, done.copied), (Ok(()), 1024));
    assert_eq!(done.request.buffer.host_bytes().unwrap()[..], bytes[512..1536]);
    let length = 2048 + 1024;
    let mut done =
        run(&mut *queue, vec![request(1, Operation::Read, SLOW - 512, length)]).remove(0);
    assert_eq!((done.result, done.copied), (Ok(()), 2048));
    let seen = done.request.buffer.host_bytes().unwrap();
    assert_eq!(seen[512..2560], bytes[..]);
    assert!(seen[..512].iter().chain(&seen[2560..]).all(|&byte| byte == 0), "from the file");
}

/// Returns a format with two files. Each flush of a file is counted, and fails if its number is
/// `failing`.
fn two_files(failing: Option<usize>) -> (Fake, Vec<Arc<std::sync::atomic::AtomicU32>>) {
    let counts: Vec<Arc<std::sync::atomic::AtomicU32>> = vec![Arc::default(), Arc::default()];
    let files = counts.iter().enumerate().map(|(file, count)| {
        let (disk, count) = (Arc::new(RamDisk::new(CAPACITY).unwrap()), Arc::clone(count));
        Arc::new(Faulty::new(disk, move |request| match request.operation {
            Operation::Flush => {
                count.fetch_add(1, Ordering::Relaxed);
                if failing == Some(file) {
                    Fault::Fail(IoError::Os(libc::EIO))
                } else {
                    Fault::None
                }
            }
            _ => Fault::None,
        })) as Arc<dyn Backend>
    });
    (Fake { files: files.collect(), written: vec![0, 1], ..Fake::default() }, counts)
}

#[test]
fn test_flush_and_forced_write_flush_every_file_that_is_written() {
    let (fake, counts) = two_files(None);
    let (fake, mapped) = opened(fake);
    let mut queue = mapped.queue().unwrap();
    let mut done = run(&mut *queue, vec![request(1, Operation::Flush, 0, 0)]);
    assert_eq!(done.remove(0).result, Ok(()));
    assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    fake.changes.count();
    let bytes = one(&mut *queue, Operation::Write { fua: true }, 0, vec![3; 512]);
    assert_eq!(bytes.unwrap(), [3; 512], "the request's own memory comes back");
    assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 2));
    assert!(!fake.changes.is_unflushed());
}

#[test]
fn test_batch_of_known_runs_and_others_comes_back_whole() {
    for runs in [0, 1] {
        let (fake, _) = two_files(None);
        let (fake, mapped) = opened(Fake { runs: Some(runs), ..fake });
        let mut queue = mapped.queue().unwrap();
        let write = Operation::Write { fua: false };
        let places = [0, SLOW, 512, 1024, SLOW + 512, 1536];
        for (operation, filled) in [(write, 0xEE), (Operation::Read, 0)] {
            let requests = (10..).zip(places).map(|(id, offset)| {
                let mut request = request(id, operation, offset, 512);
                request.buffer = IoBuffer::from_vec(vec![filled; 512]);
                request
            });
            let mut done = run(&mut *queue, requests.collect());
            done.sort_unstable_by_key(|done| done.request.tag);
            assert_eq!(
                done.iter().map(|done| done.request.tag).collect::<Vec<_>>(),
                [10, 11, 12, 13, 14, 15]
            );
            for mut done in done {
                assert_eq!(done.result, Ok(()));
                assert_eq!(done.request.buffer.host_bytes().unwrap()[..], [0xEE; 512]);
            }
        }
        let mut file = fake.files[runs].queue().unwrap();
        assert_eq!(one(&mut *file, Operation::Read, 0, vec![0; 512]), Ok(vec![0xEE; 512]));
    }
}

#[test]
fn test_forced_write_to_a_known_run_is_flushed_only_if_structures_changed() {
    let (fake, counts) = two_files(None);
    let (fake, mapped) = opened(Fake { runs: Some(0), ..fake });
    let mut queue = mapped.queue().unwrap();
    let forced = Operation::Write { fua: true };
    assert_eq!(one(&mut *queue, forced, 0, vec![3; 512]), Ok(vec![3; 512]));
    assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 0));
    fake.changes.count();
    assert_eq!(one(&mut *queue, forced, 0, vec![4; 512]), Ok(vec![4; 512]));
    assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    assert!(!fake.changes.is_unflushed());
}

#[test]
fn test_known_run_of_a_file_that_fails_fails_its_request_with_its_id_and_memory() {
    let disk = Arc::new(RamDisk::new(CAPACITY).unwrap());
    let file = Faulty::new(disk, |_| Fault::Fail(IoError::Os(libc::EIO)));
    let (fake, mapped) =
        opened(Fake { files: vec![Arc::new(file)], runs: Some(0), ..Fake::default() });
    fake.changes.count();
    let mut queue = mapped.queue().unwrap();
    let mut done =
        run(&mut *queue, vec![request(7, Operation::Write { fua: true }, 0, 512)]).remove(0);
    assert_eq!((done.request.tag, done.result), (7, Err(IoError::Os(libc::EIO))));
    assert_eq!(done.request.buffer.host_bytes().unwrap()[..], [0xEE; 512]);
}

#[test]
fn test_flush_of_which_one_file_fails_is_an_error_and_proves_nothing_durable() {
    for failing in [0, 1] {
        let (fake, _) = two_files(Some(failing));
        let (fake, mapped) = opened(fake);
        fake.changes.count();
        let mut queue = mapped.queue().unwrap();
        let error = Err(IoError::Os(libc::EIO));
        assert_eq!(one(&mut *queue, Operation::Flush, 0, vec![]), error.clone());
        assert_eq!(one(&mut *queue, Operation::Write { fua: true }, 0, vec![3; 512]), error);
        assert!(fake.changes.is_unflushed());
    }
}

#[test]
fn test_structures_in_memory_are_written_back_before_the_files_are_flushed() {
    let (fake, mapped) = opened(Fake::default());
    let mut queue = mapped.queue().unwrap();
    fake.dirty.store(true, Ordering::Relaxed);
    fake.changes.count();
    assert_eq!(one(&mut *queue, Operation::Write { fua: true }, 0, vec![3; 512]), Ok(vec![3; 512]));
    assert_eq!(fake.log(), [Log::WriteBack, Log::Flush]);
    fake.dirty.store(true, Ordering::Relaxed);
    one(&mut *queue, Operation::Flush, 0, vec![]).unwrap();
    assert_eq!(fake.log()[2..], [Log::WriteBack, Log::Flush]);
}

#[test]
fn test_panic_in_a_format_fails_its_request_and_no_other() {
    let (fake, mapped) = opened(Fake::default());
    let mut queue = mapped.queue().unwrap();
    fake.panics.store(true, Ordering::Relaxed);
    assert_eq!(one(&mut *queue, Operation::Read, SLOW, vec![0; 512]), Err(IoError::Os(libc::EIO)));
    fake.panics.store(false, Ordering::Relaxed);
    assert!(one(&mut *queue, Operation::Read, SLOW, vec![0; 512]).is_ok());
}

#[test]
fn test_disk_that_shrinks_before_a_lookup_fails_it() {
    let (fake, mapped) = opened(Fake::default());
    let mut queue = mapped.queue().unwrap();
    hold(&fake, &mut *queue, vec![request(1, Operation::Read, SLOW, 512)]);
    queue.submit(&mut vec![request(2, Operation::Discard, SLOW, 4 * BLOCK)]);
    fake.capacity.store(SLOW, Ordering::Relaxed);
    fake.gate.open();
    let done = all(&mut *queue, 2);
    let discard = done.iter().find(|done| done.request.tag == 2).unwrap();
    assert_eq!(discard.result, Err(IoError::EndOfImage));
}
