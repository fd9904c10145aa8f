//! Tasks on a system that makes calls in part, interrupts them, or refuses them.

use super::super::call::{Call, Memory};
use super::super::limits::MAX_PIECES;
use super::super::task::{Next, Task};
use super::super::*;
use super::image;
use crate::{Completion, IoBuffer, Operation, Request};

const CAPACITY: usize = 1 << 20;

fn source() -> Vec<u8> {
    (0..CAPACITY as u32).map(|at| ((at * 7) >> 3) as u8).collect()
}

fn open(cache: CacheMode) -> RawFile {
    let file = image(CAPACITY as u64);
    let options = RawOptions { cache, io: IoMode::Sync, ..RawOptions::default() };
    // The path may be removed: only the open file is needed.
    RawFile::open_with(file.as_path(), &options).unwrap()
}

fn request(operation: Operation, offset: u64, bytes: Vec<u8>) -> Box<Request> {
    let length = bytes.len() as u64;
    Request::new(5, operation, offset, length, IoBuffer::from_vec(bytes))
}

/// Runs a task with `system` in place of the kernel.
fn run(raw: &RawFile, request: Box<Request>, mut system: impl FnMut(&Call) -> i32) -> Completion {
    let mut task = Task::new(request);
    loop {
        match task.next(&raw.image) {
            Next::Done(result) => return task.into_completion(result),
            Next::Call(call) => {
                let result = system(&call);
                task.returned(&raw.image, result);
            }
        }
    }
}

/// Reads from `source` into the call's memory, at most `most` bytes.
fn read(call: &Call, source: &[u8], most: usize) -> i32 {
    let &Call::Read { memory, offset, .. } = call else { panic!("{call:?}") };
    let pieces = match memory {
        Memory::One(base, len) => {
            vec![libc::iovec { iov_base: base.cast(), iov_len: len as usize }]
        }
        // SAFETY: the task keeps its iovecs during the call.
        Memory::Many(pieces, count) => unsafe {
            std::slice::from_raw_parts(pieces, count as usize).to_vec()
        },
    };
    assert!(pieces.len() <= MAX_PIECES);
    let mut left = &source[offset as usize..];
    left = &left[..left.len().min(most)];
    let mut moved = 0;
    for piece in pieces {
        let len = piece.iov_len.min(left.len());
        // SAFETY: the piece lies in the task's buffer, and `left` has at least `len` bytes.
        unsafe { std::ptr::copy_nonoverlapping(left.as_ptr(), piece.iov_base.cast(), len) };
        left = &left[len..];
        moved += len;
    }
    moved as i32
}

#[test]
fn test_short_and_interrupted_calls_are_continued_to_the_last_byte() {
    let source = source();
    for cache in [CacheMode::Writeback, CacheMode::None] {
        let raw = open(cache);
        for (offset, len) in [(512, 512), (4096, 8192), (1536, 200 * 512)] {
            for most in [1, 7, 512, 513, usize::MAX] {
                let mut calls = 0;
                let done = run(&raw, request(Operation::Read, offset, vec![0xEE; len]), |call| {
                    calls += 1;
                    match calls % 4 {
                        1 => -libc::EINTR,
                        2 => -libc::EAGAIN,
                        _ => read(call, &source, most),
                    }
                });
                assert_eq!((done.request.tag, done.result), (5, Ok(())));
                let mut buffer = done.request.buffer;
                assert!(
                    *buffer.host_bytes().unwrap() == source[offset as usize..offset as usize + len]
                );
            }
        }
    }
}

#[test]
fn test_end_of_file_in_the_middle_is_an_error() {
    let source = source();
    let raw = open(CacheMode::Writeback);
    let done = run(&raw, request(Operation::Read, 0, vec![0; 2048]), |call| match call {
        Call::Read { offset: 0..1000, .. } => read(call, &source, 300),
        _ => 0,
    });
    assert_eq!(done.result, Err(IoError::EndOfImage));
}

#[test]
fn test_errors_after_a_part_end_the_request_with_their_meaning() {
    for (code, expected) in [
        (libc::ENOSPC, IoError::NoSpace),
        (libc::EDQUOT, IoError::NoSpace),
        (libc::EFBIG, IoError::NoSpace),
        (libc::EROFS, IoError::ReadOnly),
        (libc::EIO, IoError::Os(libc::EIO)),
        (libc::ENOMEM, IoError::Os(libc::ENOMEM)),
    ] {
        let raw = open(CacheMode::Writeback);
        let write = request(Operation::Write { fua: false }, 0, vec![1; 4096]);
        let done = run(&raw, write, |call| match call {
            Call::Write { offset: 0, .. } => 16,
            _ => -code,
        });
        assert_eq!(done.result, Err(expected));
        // A refused write is no lost flush.
        assert_eq!(run(&raw, request(Operation::Flush, 0, vec![]), |_| 0).result, Ok(()));
    }
}

#[test]
fn test_system_that_always_asks_to_try_again_is_an_error_in_the_end() {
    let raw = open(CacheMode::Writeback);
    let done = run(&raw, request(Operation::Read, 0, vec![0; 512]), |_| -libc::EAGAIN);
    assert_eq!(done.result, Err(IoError::Os(libc::EAGAIN)));
}

#[test]
fn test_forced_write_without_dsync_becomes_write_and_flush_for_ever() {
    let raw = open(CacheMode::Writeback);
    let fua = || request(Operation::Write { fua: true }, 0, vec![1; 512]);
    let mut calls = Vec::new();
    for _ in 0..2 {
        let done = run(&raw, fua(), |call| match call {
            Call::Write { durable: true, .. } => -libc::EOPNOTSUPP,
            Call::Write { .. } => {
                calls.push("write");
                512
            }
            Call::Sync => {
                calls.push("sync");
                0
            }
            other => panic!("{other:?}"),
        });
        assert_eq!(done.result, Ok(()));
    }
    assert_eq!(calls, ["write", "sync", "write", "sync"]);
}

#[test]
fn test_lost_flush_fails_all_later_flushes_and_forced_writes_but_no_others() {
    for operation in [Operation::Flush, Operation::Write { fua: true }] {
        let raw = open(CacheMode::Writeback);
        let bytes = if operation == Operation::Flush { vec![] } else { vec![1; 512] };
        let lost = run(&raw, request(operation, 0, bytes), |_| -libc::EIO);
        assert_eq!(lost.result, Err(IoError::Os(libc::EIO)));
        let later = |operation, len| {
            run(&raw, request(operation, 0, vec![1; len]), |call| match call {
                Call::Sync => 0,
                _ => len as i32,
            })
        };
        assert_eq!(later(Operation::Flush, 0).result, Err(IoError::FlushLost));
        assert_eq!(later(Operation::Write { fua: true }, 512).result, Err(IoError::FlushLost));
        assert_eq!(later(Operation::Write { fua: false }, 512).result, Ok(()));
        assert_eq!(later(Operation::Read, 512).result, Ok(()));
    }
}

#[test]
fn test_storage_without_holes_gets_zeroes_written() {
    let raw = open(CacheMode::Writeback);
    let (mut refused, mut written) = (0, 0);
    for _ in 0..2 {
        let zeroes = Operation::WriteZeroes { unmap: true };
        let mut request = request(zeroes, 512, vec![]);
        request.length = 200 * 1024;
        let done = run(&raw, request, |call| match call {
            Call::Allocate { .. } => {
                refused += 1;
                -libc::EOPNOTSUPP
            }
            Call::Write { memory: Memory::One(base, len), .. } => {
                // SAFETY: the memory of the call, which is static.
                let bytes = unsafe { std::slice::from_raw_parts(*base, *len as usize) };
                assert!(bytes.iter().all(|&byte| byte == 0));
                written += len.min(&1000);
                *len.min(&1000) as i32
            }
            other => panic!("{other:?}"),
        });
        assert_eq!(done.result, Ok(()));
    }
    assert_eq!(
        (refused, written),
        (2, 2 * 200 * 1024),
        "asked once for each way, then never again"
    );
}

#[test]
fn test_discard_of_more_than_one_call_goes_in_parts() {
    let file = image(3 << 30);
    let raw = RawFile::open(file.as_path(), false).unwrap();
    let mut discard = request(Operation::Discard, 0, vec![]);
    discard.length = (2 << 30) + 512;
    let mut calls = Vec::new();
    let done = run(&raw, discard, |call| {
        let &Call::Allocate { offset, length, .. } = call else { panic!("{call:?}") };
        calls.push((offset, length));
        0
    });
    assert_eq!(done.result, Ok(()));
    assert_eq!(calls, [(0, 1 << 30), (1 << 30, 1 << 30), (2 << 30, 512)]);
}

#[test]
fn test_direct_io_that_is_refused_goes_through_the_page_cache_and_is_counted() {
    let raw = open(CacheMode::None);
    let done =
        run(
            &raw,
            request(Operation::Write { fua: false }, 4096, vec![1; 4096]),
            |call| match call {
                Call::Write { way: call::Way::Direct, .. } => -libc::EINVAL,
                _ => 4096,
            },
        );
    assert_eq!((done.result, done.copied), (Ok(()), 4096));
}

#[test]
fn test_aligned_direct_io_copies_nothing_and_unaligned_memory_all() {
    let raw = open(CacheMode::None);
    let align = raw.image.align().unwrap();
    for (skew, copied) in [(0, 0), (1, 150 << 10)] {
        let mut buffer = IoBuffer::from_vec(vec![7; 200 << 10]);
        let base = buffer.iovecs()[0].iov_base.addr();
        let start = base.next_multiple_of(align.memory.max(512)) - base + skew;
        buffer.select(start, 150 << 10).unwrap();
        let write = Request::new(5, Operation::Write { fua: false }, 8192, 150 << 10, buffer);
        let done = Task::new(write).run(&raw.image);
        assert_eq!((done.result, done.copied), (Ok(()), copied));
        let mut seen =
            Task::new(request(Operation::Read, 8192, vec![0; 150 << 10])).run(&raw.image);
        assert_eq!(seen.result, Ok(()));
        assert!(
            *seen.request.buffer.host_bytes().unwrap() == vec![7; 150 << 10],
            "memory {skew} bytes off"
        );
    }
}
