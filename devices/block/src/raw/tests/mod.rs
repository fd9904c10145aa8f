//! Tests of raw images: opening, locking, and I/O that the system does only in part.

mod crash;
mod fixed;
mod forbidden;
mod full;
mod in_guest;
mod modes;
mod slow;
mod steps;

use std::ffi::OsStr;
use std::os::unix::fs::FileExt;
use std::process::{Command, Output};

use vmm_sys_util::tempfile::TempFile;

use super::*;
use crate::conformance::run;
use crate::{IoBuffer, IoError, Operation, Request};

fn image(size: u64) -> TempFile {
    let file = TempFile::new().unwrap();
    file.as_file().set_len(size).unwrap();
    file
}

/// Runs one of these tests in a process of its own, with an environment variable that selects its
/// part.
fn run_alone(test: &str, (variable, what): (&str, impl AsRef<OsStr>)) -> Output {
    let name = format!("raw::tests::{test}");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &name]).env(variable, what).output().unwrap()
}

/// Runs one of these tests like [`run_alone`]. It must get to its own end.
fn run_helper(test: &str, variable: &str, what: &str) {
    let output = run_alone(test, (variable, what));
    assert_eq!(output.status.code(), Some(42), "{}", String::from_utf8_lossy(&output.stdout));
}

fn is_locked(file: &TempFile, read_only: bool) -> bool {
    matches!(open_error(file.as_path(), read_only), OpenError::Locked { .. })
}

fn open_error(path: &Path, read_only: bool) -> OpenError {
    RawFile::open(path, read_only).unwrap_err()
}

#[test]
fn test_stalled_image_leaves_kernel_threads_to_the_other_images_of_its_worker() {
    let file = image(4096);
    let raw = RawFile::open(file.as_path(), false).unwrap();
    if uring::probe().is_err() {
        return;
    }
    let queue = UringQueue::new(&raw.image, &raw.pool).unwrap();
    // By default there are four for each processor.
    assert!(queue.kernel_threads().unwrap() > limits::RING_DEPTH);
}

#[test]
fn test_open_missing_file_says_how_to_create_it() {
    let error = open_error(Path::new("/nonexistent/disk.img"), false);
    assert!(matches!(error, OpenError::NotFound { .. }));
    assert!(error.to_string().contains("truncate -s 10G '/nonexistent/disk.img'"));
}

#[test]
fn test_open_empty_and_odd_sizes_are_refused_by_name() {
    assert!(matches!(open_error(image(0).as_path(), false), OpenError::Empty { .. }));
    for size in [1, 511, 513, 1 << 20 | 1] {
        match open_error(image(size).as_path(), true) {
            OpenError::NotWholeSectors { size: reported, .. } => assert_eq!(reported, size),
            other => panic!("{other}"),
        }
    }
    assert!(RawFile::open(image(512).as_path(), false).is_ok());
}

#[test]
fn test_open_directory_device_and_pipe_are_not_disks_and_do_not_block() {
    for read_only in [true, false] {
        for path in ["/", "/dev/null"] {
            assert!(
                matches!(open_error(Path::new(path), read_only), OpenError::NotADisk { .. }),
                "{path}"
            );
        }
    }
    let name = TempFile::new().unwrap();
    let path = name.as_path().with_extension("fifo");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let error = open_error(&path, true);
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(error, OpenError::NotADisk { kind: "a pipe", .. }));
}

#[test]
fn test_lock_second_writer_and_reader_beside_writer_are_refused() {
    let file = image(1 << 20);
    let writer = RawFile::open(file.as_path(), false).unwrap();
    assert!(is_locked(&file, false));
    assert!(is_locked(&file, true));
    drop(writer);
    assert!(RawFile::open(file.as_path(), false).is_ok());
}

#[test]
fn test_lock_readers_share_and_keep_writers_out() {
    let file = image(1 << 20);
    let readers = [
        RawFile::open(file.as_path(), true).unwrap(),
        RawFile::open(file.as_path(), true).unwrap(),
    ];
    assert!(is_locked(&file, false));
    drop(readers);
    assert!(RawFile::open(file.as_path(), false).is_ok());
}

#[test]
fn test_lock_outlives_the_backend_while_a_queue_is_in_use() {
    let file = image(1 << 20);
    let queue = RawFile::open(file.as_path(), false).unwrap().queue().unwrap();
    assert!(is_locked(&file, false));
    drop(queue);
    assert!(RawFile::open(file.as_path(), false).is_ok());
}

/// The second process of the next test, and no test of its own.
#[test]
fn test_lock_helper_process() {
    if let Some(path) = std::env::var_os("SYNTHVM_STORAGE_TEST_LOCK") {
        let locked =
            matches!(RawFile::open(Path::new(&path), false), Err(OpenError::Locked { .. }));
        std::process::exit(if locked { 42 } else { 43 });
    }
}

#[test]
fn test_lock_is_seen_by_another_process() {
    let file = image(1 << 20);
    let second_opens = || {
        let variable = ("SYNTHVM_STORAGE_TEST_LOCK", file.as_path());
        match run_alone("test_lock_helper_process", variable).status.code() {
            Some(42) => false,
            Some(43) => true,
            other => panic!("the helper ended with {other:?}"),
        }
    };
    let writer = RawFile::open(file.as_path(), false).unwrap();
    assert!(!second_opens());
    drop(writer);
    assert!(second_opens());
}

fn one(
    backend: &RawFile,
    operation: Operation,
    offset: u64,
    bytes: Vec<u8>,
) -> Result<Vec<u8>, IoError> {
    let mut queue = backend.queue().unwrap();
    let buffer = IoBuffer::from_vec(bytes);
    let mut done =
        run(&mut *queue, vec![Request::new(0, operation, offset, buffer.len() as u64, buffer)])
            .pop()
            .unwrap();
    done.result.map(|()| std::mem::take(done.request.buffer.host_bytes().unwrap()))
}

// Checklist 34, in the part that one process can check.
#[test]
fn test_write_is_in_the_file_and_fua_and_flush_succeed() {
    let file = image(1 << 20);
    let backend = RawFile::open(file.as_path(), false).unwrap();
    one(&backend, Operation::Write { fua: true }, 512, vec![0x5A; 512]).unwrap();
    one(&backend, Operation::Write { fua: false }, 1024, vec![0xA5; 512]).unwrap();
    one(&backend, Operation::Flush, 0, vec![]).unwrap();
    let mut seen = [0; 1024];
    file.as_file().read_exact_at(&mut seen, 512).unwrap();
    assert_eq!((seen[0], seen[511], seen[512], seen[1023]), (0x5A, 0x5A, 0xA5, 0xA5));
}

#[test]
fn test_file_that_shrank_gives_errors_and_no_flush_vouches_for_it() {
    let file = image(1 << 20);
    let backend = RawFile::open(file.as_path(), false).unwrap();
    file.as_file().set_len(4096).unwrap();
    assert_eq!(one(&backend, Operation::Read, 4096, vec![0; 512]), Err(IoError::EndOfImage));
    assert_eq!(one(&backend, Operation::Read, 3584, vec![0; 1024]), Err(IoError::EndOfImage));
    assert_eq!(one(&backend, Operation::Read, 3584, vec![1; 512]), Ok(vec![0; 512]));
    assert_eq!(one(&backend, Operation::Flush, 0, vec![]), Err(IoError::EndOfImage));
}

#[test]
fn test_read_only_image_cannot_be_written() {
    let file = image(4096);
    let backend = RawFile::open(file.as_path(), true).unwrap();
    assert!(backend.geometry().read_only);
    let written = one(&backend, Operation::Write { fua: false }, 0, vec![1; 512]);
    assert_eq!(written, Err(IoError::ReadOnly));
}

#[test]
fn test_log_of_queues_that_get_no_ring_is_limited() {
    let file = image(1 << 20);
    let mut raw = RawFile::open(file.as_path(), true).unwrap();
    if raw.io_mode() != IoMode::Uring {
        eprintln!("left out: there is no io_uring");
        return;
    }
    // Simulates a process that has no descriptor left.
    Arc::get_mut(&mut raw.image).unwrap().unlocked = None;
    vmbus_log::testing::expect_limited("queue", 500, || drop(raw.queue().unwrap()));
}
