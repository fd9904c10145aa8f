//! The conformance suite on every I/O path, with and without the page cache.

use std::os::fd::AsRawFd;

use std::cell::RefCell;

use vmm_sys_util::tempfile::TempFile;

use super::super::*;
use super::image;
use crate::conformance::{CAPACITY, FaultPlan, check, check_faults, check_read_only, check_reopen};
use crate::{IoBuffer, Operation, Request};

fn options(io: IoMode, cache: CacheMode) -> RawOptions {
    RawOptions { read_only: false, cache, io }
}

fn conforms(io: IoMode, cache: CacheMode) {
    conforms_with(io, cache, || image(CAPACITY));
}

/// Checks images in files that `file` creates.
fn conforms_with(io: IoMode, cache: CacheMode, file: impl Fn() -> TempFile) {
    let files = RefCell::new(Vec::new());
    let make = |plan: Option<&FaultPlan>| -> Arc<dyn Backend> {
        let file = file();
        let mut raw = RawFile::open_with(file.as_path(), &options(io, cache)).unwrap();
        if let Some(plan) = plan {
            Arc::get_mut(&mut raw.image).unwrap().faults = Some(plan.clone());
        }
        files.borrow_mut().push(file);
        Arc::new(raw)
    };
    check(|| make(None));
    check_faults(|plan| {
        files.borrow_mut().clear();
        make(Some(plan))
    });
    let reopened = file();
    check_reopen(|| Arc::new(RawFile::open_with(reopened.as_path(), &options(io, cache)).unwrap()));
    let read_only = RawOptions { read_only: true, ..options(io, cache) };
    let file = file();
    check_read_only(|| Arc::new(RawFile::open_with(file.as_path(), &read_only).unwrap()));
}

#[test]
fn test_sync_writeback_conforms() {
    conforms(IoMode::Sync, CacheMode::Writeback);
}

#[test]
fn test_sync_direct_conforms() {
    conforms(IoMode::Sync, CacheMode::None);
}

#[test]
fn test_threads_writeback_conforms() {
    conforms(IoMode::Threads, CacheMode::Writeback);
}

#[test]
fn test_threads_direct_conforms() {
    conforms(IoMode::Threads, CacheMode::None);
}

#[test]
fn test_uring_on_a_file_system_in_memory_conforms() {
    let memory = Path::new("/dev/shm");
    if !uring_is_here() || !memory.is_dir() {
        return;
    }
    let file = || {
        let file = TempFile::new_in(memory).unwrap();
        file.as_file().set_len(CAPACITY).unwrap();
        file
    };
    conforms_with(IoMode::Uring, CacheMode::Writeback, file);
    let direct = RawFile::open_with(file().as_path(), &options(IoMode::Uring, CacheMode::None));
    // Older kernels have no direct I/O there.
    if !matches!(direct, Err(OpenError::NoDirect { .. })) {
        conforms_with(IoMode::Uring, CacheMode::None, file);
    }
}

#[test]
fn test_uring_writeback_conforms() {
    if uring_is_here() {
        conforms(IoMode::Uring, CacheMode::Writeback);
    }
}

#[test]
fn test_uring_direct_conforms() {
    if uring_is_here() {
        conforms(IoMode::Uring, CacheMode::None);
    }
}

/// Returns whether io_uring works here. Some containers forbid it; the fallback has tests of its
/// own.
pub(super) fn uring_is_here() -> bool {
    match uring::probe() {
        Ok(()) => true,
        Err(error) => {
            eprintln!("no io_uring here: {error}");
            false
        }
    }
}

/// Returns whether the event is readable now.
fn rings(queue: &dyn Queue) -> bool {
    let mut poll = libc::pollfd { fd: queue.event().unwrap(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid pollfd.
    unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
}

#[test]
fn test_uring_read_of_what_is_cached_is_done_in_submit_and_no_event_tells() {
    if !uring_is_here() {
        return;
    }
    let file = image(CAPACITY);
    let raw =
        RawFile::open_with(file.as_path(), &options(IoMode::Uring, CacheMode::Writeback)).unwrap();
    super::one(&raw, Operation::Write { fua: false }, 4096, vec![9; 8192]).unwrap();
    let mut bytes = [0_u8; 512];
    let piece = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: one valid piece, and an open descriptor.
    let known = unsafe {
        libc::preadv2(raw.as_fd().as_raw_fd(), &raw const piece, 1, 4096, libc::RWF_NOWAIT)
    };
    if known != 512 {
        eprintln!("left out: this file system does not tell what it has cached");
        return;
    }
    let mut queue = raw.queue().unwrap();
    let request = |id, offset| {
        let (operation, buffer) = (Operation::Read, IoBuffer::from_vec(vec![0; 4096]));
        Request::new(id, operation, offset, 4096, buffer)
    };
    let mut done = Vec::new();
    queue.submit(&mut vec![request(1, 4096)]);
    assert!(!rings(&*queue));
    queue.poll(&mut done);
    assert_eq!((done.len(), done[0].result), (1, Ok(())));
    assert_eq!(*done[0].request.buffer.host_bytes().unwrap(), [9; 4096]);
    // Two requests go through the ring.
    queue.submit(&mut vec![request(1, 4096), request(2, 8192)]);
    assert!(rings(&*queue));
}
