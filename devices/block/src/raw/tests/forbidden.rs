//! A system without io_uring, or one that forbids it or withdraws it.

use super::super::*;
use super::image;
use crate::conformance::{CAPACITY, check, guest_ram};

const ENV: &str = "SYNTHVM_STORAGE_TEST_FORBIDDEN";

/// Makes system call `number` fail with `code` on this thread and the threads that it starts, like
/// a container's filter.
fn forbid(number: libc::c_long, code: i32) {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let program = [
        // The first word of the filter's data is the number of the call.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | code as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter =
        libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: plain numbers, and a filter that lives as long as the call that copies it.
    let results = unsafe {
        [
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter),
        ]
    };
    assert_eq!(results, [0, 0]);
}

/// A process under a filter, and no test of its own.
#[test]
fn test_forbidden_helper_process() {
    let Some(what) = std::env::var_os(ENV) else { return };
    let open =
        |file: &Path, io| RawFile::open_with(file, &RawOptions { io, ..RawOptions::default() });
    let conforms = |expected| {
        let files = std::cell::RefCell::new(Vec::new());
        check(|| {
            let file = image(CAPACITY);
            let raw = open(file.as_path(), IoMode::Auto).unwrap();
            assert_eq!(raw.io_mode(), expected);
            files.borrow_mut().push(file);
            Arc::new(raw)
        });
    };
    match what.to_str().unwrap() {
        "taken away" => {
            // A ring can be created, but not entered.
            forbid(libc::SYS_io_uring_enter, libc::EPERM);
            conforms(IoMode::Uring);
        }
        which => {
            forbid(
                libc::SYS_io_uring_setup,
                if which == "absent" { libc::ENOSYS } else { libc::EPERM },
            );
            conforms(IoMode::Threads);
            let error = open(image(CAPACITY).as_path(), IoMode::Uring).unwrap_err();
            assert!(matches!(error, OpenError::NoUring { .. }));
            assert!(error.to_string().contains("use io=auto or io=threads"), "{error}");
            let error = FixedMemory::new(&guest_ram(1 << 20)).unwrap_err();
            assert!(matches!(error, FixedError::NoUring(_)), "{error}");
        }
    }
    std::process::exit(42);
}

fn helper(what: &str) {
    super::run_helper("forbidden::test_forbidden_helper_process", ENV, what);
}

#[test]
fn test_auto_without_io_uring_uses_threads_and_conforms() {
    helper("absent");
}

#[test]
fn test_auto_with_io_uring_forbidden_uses_threads_and_conforms() {
    helper("forbidden");
}

#[test]
fn test_ring_that_the_kernel_takes_nothing_from_continues_by_itself() {
    if uring::probe().is_ok() {
        helper("taken away");
    }
}
