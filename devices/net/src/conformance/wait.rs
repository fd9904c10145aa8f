//! Waiting for descriptors in tests.

use std::os::fd::RawFd;

/// Waits until `fd` is readable.
///
/// # Panics
/// It is not within 10 seconds: the test would hang.
pub fn wait_readable(fd: RawFd) {
    assert!(poll(fd, 10_000), "nothing happens");
}

/// Returns whether `fd` is readable now.
pub fn is_readable(fd: RawFd) -> bool {
    poll(fd, 0)
}

fn poll(fd: RawFd, timeout: i32) -> bool {
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid pollfd. A wrong descriptor is reported, not dereferenced.
    unsafe { libc::poll(&raw mut entry, 1, timeout) > 0 }
}
