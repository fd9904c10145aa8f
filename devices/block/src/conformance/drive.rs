//! Submission of requests to a queue, and the wait for their results.

use std::os::fd::RawFd;

use super::super::{IoBuffer, IoDone, IoError, IoRequest, Operation, Queue};

/// Milliseconds after which a request counts as lost.
const LOST: i32 = 120_000;

/// Runs `batch` until all its requests are complete. Returns them sorted by id.
///
/// # Panics
/// A request does not complete, completes twice, or `submit` left requests in the vector.
pub fn run(queue: &mut dyn Queue, mut batch: Vec<IoRequest>) -> Vec<IoDone> {
    let mut expected: Vec<u32> = batch.iter().map(|request| request.id).collect();
    let mut done = Vec::new();
    queue.submit(&mut batch);
    assert!(batch.is_empty(), "submit leaves an empty vector");
    queue.poll(&mut done);
    while done.len() < expected.len() {
        wait(queue.event().expect("a queue without an event finishes in submit"));
        queue.poll(&mut done);
    }
    done.sort_by_key(|done| done.id);
    expected.sort_unstable();
    assert!(done.iter().map(|done| done.id).eq(expected), "each request comes back once");
    done
}

/// Waits for a queue's event, or for any descriptor to become readable.
///
/// # Panics
/// The descriptor does not become readable within two minutes.
pub fn wait(event: RawFd) {
    let mut poll = libc::pollfd { fd: event, events: libc::POLLIN, revents: 0 };
    loop {
        // SAFETY: one valid pollfd; a descriptor that is not open is reported, not dereferenced.
        match unsafe { libc::poll(&raw mut poll, 1, LOST) } {
            1 => return,
            0 => panic!("the event never came"),
            _ => {}
        }
    }
}

/// Executes one read, write or flush of `bytes`. Returns the content of the buffer afterwards.
///
/// # Errors
/// The error of the request.
///
/// # Panics
/// As [`run`].
pub fn one(
    queue: &mut dyn Queue,
    operation: Operation,
    offset: u64,
    bytes: Vec<u8>,
) -> Result<Vec<u8>, IoError> {
    let mut done =
        run(queue, vec![request(7, operation, offset, bytes)]).pop().expect("one request");
    done.result.map(|()| std::mem::take(done.buffer.host_bytes().expect("host memory")))
}

/// Executes one request without data: a discard or zeroes.
///
/// # Errors
/// The error of the request.
///
/// # Panics
/// As [`run`].
pub fn over(
    queue: &mut dyn Queue,
    operation: Operation,
    offset: u64,
    length: u64,
) -> Result<(), IoError> {
    let buffer = Box::new(IoBuffer::from_vec(Vec::new()));
    let mut done = run(queue, vec![IoRequest { id: 3, operation, offset, length, buffer }]);
    done.pop().expect("one request").result
}

/// Returns `len` bytes that differ by position and by seed.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (at.wrapping_mul(0x9E37_79B9).wrapping_add(seed) >> 5) as u8).collect()
}

pub(super) fn request(id: u32, operation: Operation, offset: u64, bytes: Vec<u8>) -> IoRequest {
    let length = bytes.len() as u64;
    IoRequest { id, operation, offset, length, buffer: Box::new(IoBuffer::from_vec(bytes)) }
}

/// Executes one request like [`one`], with memory that begins `skew` bytes after the allocator's
/// alignment.
pub(super) fn skewed(
    id: u32,
    operation: Operation,
    offset: u64,
    bytes: &[u8],
    skew: usize,
) -> IoRequest {
    let mut buffer = IoBuffer::from_vec([&vec![0; skew][..], bytes].concat());
    buffer.select(skew, bytes.len()).expect("it is there");
    IoRequest { id, operation, offset, length: bytes.len() as u64, buffer: Box::new(buffer) }
}
