//! Submission of requests to a queue, and the wait for their results.

use std::os::fd::RawFd;

use super::super::{Completion, IoBuffer, IoError, Operation, Queue, Request};

/// Milliseconds after which a request counts as lost.
const LOST: i32 = 120_000;

/// Runs `batch` to its end. Sorted by tag.
///
/// # Panics
/// A request does not come back, comes back twice or changed, or `submit` left something in the
/// vector.
pub fn run(queue: &mut dyn Queue, mut batch: Vec<Box<Request>>) -> Vec<Completion> {
    let mut expected: Vec<_> = batch.iter().map(|request| fields(request)).collect();
    let mut done = Vec::new();
    queue.submit(&mut batch);
    assert!(batch.is_empty(), "submit leaves an empty vector");
    queue.poll(&mut done);
    while done.len() < expected.len() {
        wait(queue.event().expect("a queue without an event finishes in submit"));
        queue.poll(&mut done);
    }
    done.sort_by_key(|done| done.request.tag);
    expected.sort_unstable_by_key(|&(tag, ..)| tag);
    assert!(
        done.iter().map(|done| fields(&done.request)).eq(expected),
        "each request comes back once, as it was submitted"
    );
    done
}

/// The fields that a request has again when it comes back.
fn fields(request: &Request) -> (u64, Operation, u64, u64) {
    (request.tag, request.operation, request.offset, request.length)
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
    done.result.map(|()| std::mem::take(done.request.buffer.host_bytes().expect("host memory")))
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
    let mut done = run(queue, vec![Request::new(3, operation, offset, length, IoBuffer::empty())]);
    done.pop().expect("one request").result
}

/// Returns `len` bytes that differ by position and by seed.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (at.wrapping_mul(0x9E37_79B9).wrapping_add(seed) >> 5) as u8).collect()
}

pub(super) fn request(tag: u64, operation: Operation, offset: u64, bytes: Vec<u8>) -> Box<Request> {
    let length = bytes.len() as u64;
    Request::new(tag, operation, offset, length, IoBuffer::from_vec(bytes))
}

/// Executes one request like [`one`], with memory that begins `skew` bytes after the allocator's
/// alignment.
pub(super) fn skewed(
    tag: u64,
    operation: Operation,
    offset: u64,
    bytes: &[u8],
    skew: usize,
) -> Box<Request> {
    let mut buffer = IoBuffer::from_vec([&vec![0; skew][..], bytes].concat());
    buffer.select(skew, bytes.len()).expect("it is there");
    Request::new(tag, operation, offset, bytes.len() as u64, buffer)
}
