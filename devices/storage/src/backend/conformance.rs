//! What every backend must do. Each backend's tests call [`check`] with a maker of fresh disks of [`CAPACITY`] bytes.

use std::sync::Arc;

use super::{
    Backend, Fault, Faulty, IoBuffer, IoDone, IoError, IoRequest, Operation, Queue, RamDisk, RawFile,
};
use vmm_sys_util::tempfile::TempFile;

/// Capacity that the suite expects.
pub(crate) const CAPACITY: u64 = 8 << 20;

const WRITE: Operation = Operation::Write { fua: false };

fn request(id: u32, operation: Operation, offset: u64, bytes: Vec<u8>) -> IoRequest {
    IoRequest {
        id,
        operation,
        offset,
        length: bytes.len() as u64,
        buffer: Box::new(IoBuffer::from_vec(bytes)),
    }
}

/// Runs a batch to its end and sorts it by id.
pub(crate) fn run(queue: &mut dyn Queue, mut batch: Vec<IoRequest>) -> Vec<IoDone> {
    let expected = batch.len();
    let mut done = Vec::new();
    queue.submit(&mut batch);
    assert!(batch.is_empty(), "submit leaves an empty vector");
    queue.poll(&mut done);
    while done.len() < expected {
        let event = queue.event().expect("a queue without an event finishes in submit");
        wait(event);
        queue.poll(&mut done);
    }
    done.sort_by_key(|done| done.id);
    done
}

fn wait(event: std::os::fd::RawFd) {
    let mut poll = libc::pollfd { fd: event, events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid pollfd; the queue keeps the descriptor open.
    assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 60_000) }, 1, "the event never came");
}

fn one(queue: &mut dyn Queue, operation: Operation, offset: u64, bytes: Vec<u8>) -> Result<Vec<u8>, IoError> {
    let mut done = run(queue, vec![request(7, operation, offset, bytes)]);
    let mut done = done.pop().unwrap();
    assert_eq!(done.id, 7);
    done.result.map(|()| std::mem::take(done.buffer.host_bytes().unwrap()))
}

fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (at.wrapping_mul(0x9E37_79B9).wrapping_add(seed) >> 5) as u8).collect()
}

/// The whole suite on one fresh disk.
pub(crate) fn check(backend: &Arc<dyn Backend>) {
    assert_eq!(backend.geometry().capacity, CAPACITY);
    assert!(!backend.identity().is_empty());
    fresh_disk_reads_zero(backend);
    written_bytes_are_read_back(backend);
    first_and_last_block_are_reachable(backend);
    nothing_beyond_the_end_is(backend);
    scattered_pieces_keep_their_order(backend);
    a_batch_comes_back_whole(backend);
    queues_see_each_others_writes(backend);
    zeroes_replace_what_was_written(backend);
    discarded_bytes_are_gone_and_no_others(backend);
    an_empty_batch_is_nothing(backend);
}

fn fresh_disk_reads_zero(backend: &Arc<dyn Backend>) {
    let mut queue = backend.queue().unwrap();
    assert_eq!(one(&mut *queue, Operation::Read, 4096, vec![0xAA; 65536]), Ok(vec![0; 65536]));
}

fn written_bytes_are_read_back(backend: &Arc<dyn Backend>) {
    let mut queue = backend.queue().unwrap();
    for (offset, len, fua) in [(0, 512, false), (512, 1536, true), (1 << 20, 1 << 20, false)] {
        let bytes = pattern(offset, len);
        one(&mut *queue, Operation::Write { fua }, offset, bytes.clone()).unwrap();
        assert_eq!(one(&mut *queue, Operation::Flush, 0, vec![]), Ok(vec![]));
        assert_eq!(one(&mut *queue, Operation::Read, offset, vec![0; len]), Ok(bytes));
    }
}

fn first_and_last_block_are_reachable(backend: &Arc<dyn Backend>) {
    let mut queue = backend.queue().unwrap();
    for offset in [0, CAPACITY - 512] {
        one(&mut *queue, WRITE, offset, pattern(offset, 512)).unwrap();
        assert_eq!(one(&mut *queue, Operation::Read, offset, vec![0; 512]), Ok(pattern(offset, 512)));
    }
}

fn nothing_beyond_the_end_is(backend: &Arc<dyn Backend>) {
    let mut queue = backend.queue().unwrap();
    for offset in [CAPACITY, CAPACITY - 512] {
        let result = one(&mut *queue, Operation::Read, offset, vec![0; 1024]);
        assert_eq!(result, Err(IoError::EndOfImage));
    }
}

fn scattered_pieces_keep_their_order(backend: &Arc<dyn Backend>) {
    // 1500 sectors, each its own page list entry, in reverse: more pieces than one system call takes, none of them merging.
    let mut queue = backend.queue().unwrap();
    let guest = crate::testing::guest_ram(16 << 20);
    let pages: Vec<u64> = (100..100 + 1500).rev().collect();
    let mut buffer = crate::testing::guest_buffer(&guest, 0x200, 1499 * 4096, &pages);
    let bytes = pattern(3, 1499 * 4096);
    buffer.guest_mut().unwrap().write(0, &bytes).unwrap();
    buffer.select(0, bytes.len()).unwrap();
    assert!(buffer.iovecs().len() > 1024);
    let offset = 1 << 19;
    let done = run(
        &mut *queue,
        vec![IoRequest {
            id: 1,
            operation: WRITE,
            offset,
            length: bytes.len() as u64,
            buffer: Box::new(buffer),
        }],
    );
    assert_eq!(done[0].result, Ok(()));
    assert_eq!(one(&mut *queue, Operation::Read, offset, vec![0; bytes.len()]), Ok(bytes.clone()));
    // And back, into other pages.
    let mut buffer = crate::testing::guest_buffer(&guest, 0, 1499 * 4096, &pages[..1499]);
    buffer.select(0, bytes.len()).unwrap();
    let done = run(
        &mut *queue,
        vec![IoRequest {
            id: 2,
            operation: Operation::Read,
            offset,
            length: bytes.len() as u64,
            buffer: Box::new(buffer),
        }],
    );
    let mut seen = vec![0; bytes.len()];
    done[0].buffer.guest().unwrap().read(0, &mut seen).unwrap();
    assert!(seen == bytes);
}

fn a_batch_comes_back_whole(backend: &Arc<dyn Backend>) {
    let mut queue = backend.queue().unwrap();
    let at = |id: u32| u64::from(id) * 512;
    let writes = (0..300).map(|id| request(id, WRITE, at(id), pattern(id.into(), 512))).collect();
    let done = run(&mut *queue, writes);
    assert!(done.iter().map(|done| done.id).eq(0..300));
    assert!(done.iter().all(|done| done.result.is_ok()));
    let reads = (0..300).map(|id| request(id, Operation::Read, at(id), vec![0; 512])).collect();
    for mut done in run(&mut *queue, reads) {
        assert_eq!(*done.buffer.host_bytes().unwrap(), pattern(done.id.into(), 512));
    }
}

fn queues_see_each_others_writes(backend: &Arc<dyn Backend>) {
    let (mut first, mut second) = (backend.queue().unwrap(), backend.queue().unwrap());
    one(&mut *first, WRITE, 8192, pattern(42, 4096)).unwrap();
    assert_eq!(one(&mut *second, Operation::Read, 8192, vec![0; 4096]), Ok(pattern(42, 4096)));
}

fn over(queue: &mut dyn Queue, operation: Operation, offset: u64, length: u64) -> Result<(), IoError> {
    let buffer = Box::new(IoBuffer::from_vec(Vec::new()));
    run(queue, vec![IoRequest { id: 3, operation, offset, length, buffer }]).pop().unwrap().result
}

/// From no block's start to no block's end, within one block, and over many.
const STRETCHES: [(u64, u64); 4] =
    [(512, 512), (3 * 512, 40 * 512), (65536, 65536), (1 << 20, (1 << 20) + 512)];

fn zeroes_replace_what_was_written(backend: &Arc<dyn Backend>) {
    let mut queue = backend.queue().unwrap();
    for (unmap, (offset, length)) in
        [false, true].into_iter().flat_map(|unmap| STRETCHES.map(|at| (unmap, at)))
    {
        let mut expected = pattern(offset, length as usize + 1024);
        one(&mut *queue, WRITE, offset - 512, expected.clone()).unwrap();
        assert_eq!(over(&mut *queue, Operation::WriteZeroes { unmap }, offset, length), Ok(()));
        expected[512..512 + length as usize].fill(0);
        let seen = one(&mut *queue, Operation::Read, offset - 512, vec![1; expected.len()]).unwrap();
        assert!(seen == expected, "zeroes at {offset} + {length}, unmap {unmap}");
    }
}

fn discarded_bytes_are_gone_and_no_others(backend: &Arc<dyn Backend>) {
    let mut queue = backend.queue().unwrap();
    let zeroes = backend.geometry().discard.is_some_and(|discard| discard.zeroes);
    for (offset, length) in STRETCHES {
        let mut expected = pattern(offset + 1, length as usize + 1024);
        one(&mut *queue, WRITE, offset - 512, expected.clone()).unwrap();
        assert_eq!(over(&mut *queue, Operation::Discard, offset, length), Ok(()));
        let mut seen = one(&mut *queue, Operation::Read, offset - 512, vec![1; expected.len()]).unwrap();
        expected[512..512 + length as usize].fill(0);
        if !zeroes {
            seen[512..512 + length as usize].fill(0);
        }
        assert!(seen == expected, "discard of {length} bytes at {offset}");
    }
    assert_eq!(over(&mut *queue, Operation::Discard, 0, CAPACITY), Ok(()));
    one(&mut *queue, WRITE, 0, vec![0; 65536]).unwrap();
}

fn an_empty_batch_is_nothing(backend: &Arc<dyn Backend>) {
    assert!(run(&mut *backend.queue().unwrap(), vec![]).is_empty());
}

#[test]
fn test_ram_disk_conforms() {
    let backend: Arc<dyn Backend> = Arc::new(RamDisk::new(CAPACITY).unwrap());
    check(&backend);
}

#[test]
fn test_raw_file_conforms() {
    let file = TempFile::new().unwrap();
    file.as_file().set_len(CAPACITY).unwrap();
    let backend: Arc<dyn Backend> = Arc::new(RawFile::open(file.as_path(), false).unwrap());
    check(&backend);
}

#[test]
fn test_faulty_backend_without_faults_conforms() {
    let inner = Arc::new(RamDisk::new(CAPACITY).unwrap());
    let backend: Arc<dyn Backend> = Arc::new(Faulty::new(inner, |_| Fault::None));
    check(&backend);
}

#[test]
fn test_faulty_backend_that_stalls_finishes_after_release() {
    let inner = Arc::new(RamDisk::new(CAPACITY).unwrap());
    let faulty = Faulty::new(inner, |_| Fault::Stall);
    let hold = faulty.hold();
    let mut queue = faulty.queue().unwrap();
    let mut done = Vec::new();
    queue.submit(&mut vec![request(1, WRITE, 0, pattern(1, 512))]);
    queue.poll(&mut done);
    assert!(done.is_empty());
    hold.release();
    wait(queue.event().unwrap());
    queue.poll(&mut done);
    assert_eq!((done.len(), done[0].result), (1, Ok(())));
}

#[test]
fn test_read_only_ram_disk_refuses_writes() {
    let disk = RamDisk::new(CAPACITY).unwrap().with_geometry(|geometry| geometry.read_only = true);
    let mut queue = disk.queue().unwrap();
    assert_eq!(one(&mut *queue, WRITE, 0, vec![1; 512]), Err(IoError::ReadOnly));
}
