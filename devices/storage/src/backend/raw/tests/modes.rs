//! Every way of reaching the kernel, with and without the page cache, does all that a backend must.

use std::cell::RefCell;

use super::super::*;
use super::image;
use crate::backend::conformance::{CAPACITY, FaultPlan, check, check_faults, check_read_only, check_reopen};

fn options(io: IoMode, cache: CacheMode) -> RawOptions {
    RawOptions { read_only: false, cache, io }
}

fn conforms(io: IoMode, cache: CacheMode) {
    let files = RefCell::new(Vec::new());
    let make = |plan: Option<&FaultPlan>| -> Arc<dyn Backend> {
        let file = image(CAPACITY);
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
    let file = image(CAPACITY);
    check_reopen(|| Arc::new(RawFile::open_with(file.as_path(), &options(io, cache)).unwrap()));
    let read_only = RawOptions { read_only: true, ..options(io, cache) };
    let file = image(CAPACITY);
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

/// Some containers forbid it: then the fallback is what counts, and it has tests of its own.
fn uring_is_here() -> bool {
    match uring::probe() {
        Ok(()) => true,
        Err(error) => {
            eprintln!("no io_uring here: {error}");
            false
        }
    }
}
